"""The shape of ResNet-50, for both frameworks. Source: He et al. 2015, arXiv:1512.03385, table 1."""

# width of the 3x3 convolution, blocks, stride of the first block
LAYOUT = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
EXPANSION = 4
