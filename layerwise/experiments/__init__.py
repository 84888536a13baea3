"""Executable papers: every table and figure of the ResNet and AlexNet papers as rows, numbers and claims."""
