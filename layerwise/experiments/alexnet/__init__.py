"""AlexNet (Krizhevsky, Sutskever, Hinton 2012): one file a table, figure or ablation of the text."""
