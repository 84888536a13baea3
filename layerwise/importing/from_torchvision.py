"""torchvision's names of layers, family by family."""

from __future__ import annotations

from layerwise.importing.tables import Table, numbered

# Also timm's resnet, resnext and wide_resnet.
RESNET: Table = (
    (r"^(conv|bn)1\.", "features.conv1.{1}."),
    (r"^layer(\d)\.(\d+)\.", "features.conv{1+1}_x.conv{1+1}_{2+1}."),
    (r"(_\d+)\.((?:conv|bn)\d)\.", "{1}.residual.{2}."),
    (r"\.downsample\.0\.", ".shortcut.conv."),
    (r"\.downsample\.1\.", ".shortcut.bn."),
    (r"^fc\.", "head.fc."),
)

ALEXNET: Table = (
    *numbered("features.", {0: "features.conv1", 3: "features.conv2", 6: "features.conv3", 8: "features.conv4",
                            10: "features.conv5"}),
    *numbered("classifier.", {1: "head.fc6", 4: "head.fc7", 6: "head.fc8"}),
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
    return (*numbered("features.", layers), *numbered("classifier.", {0: "head.fc6", 3: "head.fc7", 6: "head.fc8"}))


VGG_BLOCKS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
VGG: dict[str, Table] = {name: vgg(blocks) for name, blocks in VGG_BLOCKS.items()} | {
    f"{name}_bn": vgg(blocks, normalised=True) for name, blocks in VGG_BLOCKS.items()
}

# The auxiliary heads follow the modules whose maps they see.
GOOGLENET: Table = (
    (r"^fc\.", "head.fc."),
    (r"^aux1\.", "auxiliary.inception_4a."),
    (r"^aux2\.", "auxiliary.inception_4d."),
    (r"^conv1\.", "features.conv1."),
    (r"^conv([23])\.", "features.conv2.layer{1-1}."),
    (r"^inception(\d[a-e])\.", "features.inception_{1}."),
    (r"\.branch1\.", ".branch1.layer1."),
    (r"\.branch([23])\.(\d)\.", ".branch{1}.layer{2+1}."),
    (r"\.branch4\.1\.", ".branch4.layer1."),
)

INCEPTION_V3: Table = (
    (r"^fc\.", "head.fc."),
    (r"^AuxLogits\.conv(\d)\.", "auxiliary.mixed_6e.conv{1+1}."),
    (r"^AuxLogits\.fc\.", "auxiliary.mixed_6e.fc."),
    (r"^Conv2d_(\d[ab])_\dx\d\.", "features.conv{1}."),
    # The two modules that halve the map have no branch of one 1x1 convolution: theirs count from the 3x3.
    (r"^Mixed_6a\.branch3x3\.", "features.mixed_6a.branch1.layer1."),
    (r"^Mixed_6a\.branch3x3dbl_(\d)\.", "features.mixed_6a.branch2.layer{1}."),
    (r"^Mixed_7a\.branch3x3_(\d)\.", "features.mixed_7a.branch1.layer{1}."),
    (r"^Mixed_7a\.branch7x7x3_(\d)\.", "features.mixed_7a.branch2.layer{1}."),
    (r"^Mixed_", "features.mixed_"),
    (r"\.branch1x1\.", ".branch1.layer1."),
    (r"\.branch_pool\.", ".branch4.layer1."),
    (r"\.branch3x3_2a\.", ".branch2.expanded.branch1."),
    (r"\.branch3x3_2b\.", ".branch2.expanded.branch2."),
    (r"\.branch3x3dbl_3a\.", ".branch3.expanded.branch1."),
    (r"\.branch3x3dbl_3b\.", ".branch3.expanded.branch2."),
    (r"\.branch(?:5x5|7x7|3x3)_(\d)\.", ".branch2.layer{1}."),
    (r"\.branch(?:7x7|3x3)dbl_(\d)\.", ".branch3.layer{1}."),
)

# Also timm's; files of torchvision before 0.3 call a layer's parts norm.1, conv.1 ...
DENSENET: Table = (
    (r"^classifier\.", "head.fc."),
    (r"^features\.conv0\.", "features.convolution.conv."),
    (r"^features\.norm0\.", "features.convolution.bn."),
    (r"^features\.norm5\.", "features.activation.bn."),
    (r"^features\.transition(\d)\.norm\.", "features.transition_{1}.bn."),
    (r"^features\.transition(\d)\.conv\.", "features.transition_{1}.conv."),
    (r"^features\.denseblock(\d)\.denselayer(\d+)\.", "features.dense_block_{1}.layer_{2}."),
    (r"\.norm\.?1\.", ".bottleneck.bn."),
    (r"\.conv\.?1\.", ".bottleneck.conv."),
    (r"\.norm\.?2\.", ".composite.bn."),
    (r"\.conv\.?2\.", ".composite.conv."),
)

# Our names of MobileNet-v2's bottlenecks in their order: lines of the paper's table 2, and how often each is repeated.
MOBILENET_V2_BLOCKS = tuple(f"features.bottleneck{row}.bottleneck{row}_{number}"
                            for row, repeats in enumerate((1, 2, 3, 4, 3, 3, 1), 1)
                            for number in range(1, repeats + 1))  # fmt: skip
MOBILENET_V2: Table = (
    (r"^classifier\.1\.", "head.fc."),
    (r"^features\.0\.0\.", "features.conv1.conv."),
    (r"^features\.0\.1\.", "features.conv1.bn."),
    (r"^features\.18\.0\.", "features.conv2.conv."),
    (r"^features\.18\.1\.", "features.conv2.bn."),
    # The first bottleneck has no expansion, so its parts are counted from the depthwise convolution.
    *((rf"^features\.1\.conv\.{number}\.", f"{MOBILENET_V2_BLOCKS[0]}.{part}.")
      for number, part in ((r"0\.0", "depthwise"), (r"0\.1", "depthwise_bn"), ("1", "project"), ("2", "project_bn"))),
    *numbered("features.", {number: name for number, name in enumerate(MOBILENET_V2_BLOCKS, 1) if number > 1}),
    *((rf"\.conv\.{number}\.", f".{part}.")
      for number, part in ((r"0\.0", "expand"), (r"0\.1", "expand_bn"), (r"1\.0", "depthwise"),
                           (r"1\.1", "depthwise_bn"), ("2", "project"), ("3", "project_bn"))),
)  # fmt: skip
