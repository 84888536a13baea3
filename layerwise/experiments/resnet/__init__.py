"""ResNet (He, Zhang, Ren, Sun 2015): one file a table, figure or check of the text."""
