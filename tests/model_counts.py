"""What each network must count: a row a name, a table a family.

name: learnable parameters (auxiliary heads left out), multiply-adds of convolutions and fully connected layers for one
picture of the paper's size, and the side of a small square picture that the other tests of test_models.py use.
"""

from __future__ import annotations

LENET = {
    "lenet1989": (9_760, 63_660, 16),
    "lenet1990": (2_578, 91_520, 28),
    "lenet5": (60_806, 326_520, 32),
    "lenet5_1998": (60_000, 325_680, 32),
}
ALEXNET = {
    "alexnet": (60_965_224, 724_406_816, 67),
    "alexnet_one_gpu": (40_702_632, 335_259_920, 67),
    "alexnet_six_conv": (61_260_392, 735_023_648, 67),
    "alexnet_one_tower": (61_100_840, 714_188_480, 67),
}
ZFNET = {
    "zfnet": (62_357_608, 1_168_032_896, 63),
    "zfnet_wide": (107_627_624, 2_476_704_896, 63),
    "zfnet512": (87_250_536, 1_481_727_008, 59),
}
NIN = {"nin": (966_986, 222_486_528, 8)}
MAXOUT = {"maxout": (16_247_830, 732_290_696, 8)}
VGG = {
    "vgg11": (132_863_336, 7_609_090_048, 32),
    "vgg11_lrn": (132_863_336, 7_609_090_048, 32),
    "vgg13": (133_047_848, 11_308_466_176, 32),
    "vgg16_c": (133_638_952, 11_770_888_192, 32),
    "vgg16": (138_357_544, 15_470_264_320, 32),
    "vgg19": (143_667_240, 19_632_062_464, 32),
    "vgg11_bn": (132_868_840, 7_609_090_048, 32),
    "vgg13_bn": (133_053_736, 11_308_466_176, 32),
    "vgg16_bn": (138_365_992, 15_470_264_320, 32),
    "vgg19_bn": (143_678_248, 19_632_062_464, 32),
}
DSN = {"dsn": (966_986, 222_486_528, 8)}
FITNET = {
    "fitnet19": (2_548_602, 381_749_128, 8),
    "fitnet11_250k": (251_194, 30_150_024, 8),
    "fitnet11_862k": (864_122, 107_775_880, 8),
}
HIGHWAY = {
    "highway19": (2_256_838, 330_826_728, 8),
    "highway32": (1_252_570, 314_344_064, 8),
    "highway19_plain": (1_193_526, 172_164_072, 8),
    "highway32_plain": (649_930, 160_400_000, 8),
}
RESNET = {
    "resnet18": (11_689_512, 1_814_073_344, 33),
    "resnet34": (21_797_672, 3_663_761_408, 33),
    "resnet50": (25_557_032, 3_857_973_248, 33),
    "resnet101": (44_549_160, 7_570_194_432, 33),
    "resnet152": (60_192_808, 11_282_415_616, 33),
    "plain18": (11_515_688, 1_794_805_760, 33),
    "plain34": (21_623_848, 3_644_493_824, 33),
    "resnet18_a": (11_515_688, 1_794_805_760, 33),
    "resnet34_a": (21_623_848, 3_644_493_824, 33),
    "resnet18_c": (12_043_816, 1_878_298_624, 33),
    "resnet34_c": (22_716_840, 3_830_747_136, 33),
    "resnet50_v1_5": (25_557_032, 4_089_184_256, 33),
    "resnet101_v1_5": (44_549_160, 7_801_405_440, 33),
    "resnet152_v1_5": (60_192_808, 11_513_626_624, 33),
    "resnet20": (269_722, 40_551_040, 8),
    "resnet32": (464_154, 68_862_592, 8),
    "resnet44": (658_586, 97_174_144, 8),
    "resnet56": (853_018, 125_485_696, 8),
    "resnet110": (1_727_962, 252_887_680, 8),
    "resnet1202": (19_421_274, 2_829_238_912, 8),
    "plain20": (269_722, 40_551_040, 8),
    "plain32": (464_154, 68_862_592, 8),
    "plain44": (658_586, 97_174_144, 8),
    "plain56": (853_018, 125_485_696, 8),
    "plain110": (1_727_962, 252_887_680, 8),
    "resnet20_one_layer": (269_722, 40_551_040, 8),
    "resnet20_three_layer": (269_722, 40_551_040, 8),
}
COUNTS: dict[str, tuple[int, int, int]] = {
    **LENET,
    **ALEXNET,
    **ZFNET,
    **NIN,
    **MAXOUT,
    **VGG,
    **DSN,
    **FITNET,
    **HIGHWAY,
    **RESNET,
}
# What makes a network small enough for the tests that compute with it, where its fully connected layers fit one size
# of map and hold a hundred million weights. Counts and shapes are those of the whole network.
SMALL_ARGUMENTS: dict[str, dict[str, int]] = {
    **{name: {"map_side": 1, "hidden_features": 32} for name in (*ALEXNET, *ZFNET, *VGG)},
    "maxout": {"map_side": 2},
    "dsn": {"input_side": 8},
}
