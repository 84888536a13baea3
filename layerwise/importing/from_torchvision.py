"""torchvision's names of layers, family by family."""

from __future__ import annotations

from layerwise.importing.tables import Table, numbered

# Also timm's resnet, resnext and wide_resnet.
RESNET: Table = (
    (r"conv1", "features.conv1.conv"),
    (r"bn1", "features.conv1.bn"),
    (r"layer(\d)\.(\d+)\.(conv|bn)(\d)", "features.conv{1+1}_x.conv{1+1}_{2+1}.residual.{3}{4}"),
    (r"layer(\d)\.(\d+)\.downsample\.0", "features.conv{1+1}_x.conv{1+1}_{2+1}.shortcut.conv"),
    (r"layer(\d)\.(\d+)\.downsample\.1", "features.conv{1+1}_x.conv{1+1}_{2+1}.shortcut.bn"),
    (r"fc", "head.fc"),
)

ALEXNET: Table = (
    *numbered(r"features\.#", {0: "features.conv1", 3: "features.conv2", 6: "features.conv3", 8: "features.conv4",
                               10: "features.conv5"}),
    *numbered(r"classifier\.#", {1: "head.fc6", 4: "head.fc7", 6: "head.fc8"}),
)  # fmt: skip


def vgg(blocks: tuple[int, int, int, int, int], normalised: bool = False) -> Table:
    """VGG with so many convolutions in each block: convolution, (batch normalisation,) ReLU; pooling after a block."""
    layers: dict[int, str] = {}
    number = 0
    for block, depth in enumerate(blocks, 1):
        for place in range(1, depth + 1):
            layers[number] = f"features.conv{block}_{place}"
            if normalised:
                layers[number + 1] = f"features.bn{block}_{place}"
            number += 3 if normalised else 2
        number += 1
    head = {0: "head.fc6", 3: "head.fc7", 6: "head.fc8"}
    return (*numbered(r"features\.#", layers), *numbered(r"classifier\.#", head))


VGG_BLOCKS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
VGG: dict[str, Table] = {name: vgg(blocks) for name, blocks in VGG_BLOCKS.items()} | {
    f"{name}_bn": vgg(blocks, normalised=True) for name, blocks in VGG_BLOCKS.items()
}
