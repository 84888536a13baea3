"""What a learner is told of each paper and of each of its tables and figures: shown, why it mattered, what to look at.

The words are ours; numbers are the papers'. `papers_learn.py` puts them beside command, cost, status and picture.
"""

from __future__ import annotations

from typing import NamedTuple


class Learn(NamedTuple):
    """What a table or figure shows, why it mattered, and what to look at first."""

    shown: str
    mattered: str
    look: str


class About(NamedTuple):
    """A paper: its title as cited, and a few sentences on what it is about."""

    title: str
    text: str


PAPERS: dict[str, About] = {
    "resnet": About(
        "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition (2015)",
        "Networks had become better by becoming deeper, until about twenty layers. Beyond that plain networks got "
        "worse "
        "even on the pictures they were trained on: the degradation problem. The paper lets each pair of layers learn "
        "what to add to its input instead of a new output. With such shortcuts 152 layers are trained as easily as "
        "18."),
    "alexnet": About(
        "Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks (2012)",
        "A convolutional network of eight layers won the ImageNet challenge of 2012 by a margin that ended the age of "
        "features made by hand. Nearly every part of it was tested for itself: the activation, the normalisation, the "
        "pooling, the augmentation and dropout; the tests are small enough to be done again."),
    "history": About(
        "Yin, Wang, Wang: Review of Deep Learning (2015); and a history of deep convolutional networks (2018)",
        "Two reviews in Chinese that sum up the field by its numbers. Some of them follow from the networks alone and "
        "are counted here; not all of them are right."),
}

LEARN: dict[str, Learn] = {
    "resnet/figure-1": Learn(
        "Training and test error of two plain networks, 20 and 56 layers deep, over the steps of training.",
        "It is the observation that the paper starts from: the deeper one is worse, also on its training pictures. So "
        "it is not overfitting; the deeper network is harder to train, though it could copy the shallower one.",
        "The left panel (training error): the curve of 56 layers stays above that of 20 to the end. The drops are "
        "where the learning rate is divided by ten."),
    "resnet/identity": Learn(
        "A deeper network made from a trained shallower one by adding layers that hand their input on unchanged.",
        "It proves that a deeper network need not be worse: a solution that is as good exists. That training does not "
        "find it is the paper's puzzle.",
        "The outputs of the two networks: they are equal, so a deeper network can have an error as low as the shallow "
        "one's."),
    "resnet/table-1": Learn(
        "The five networks for ImageNet, 18 to 152 layers, stage by stage, with what they cost.",
        "It shows that depth came cheap: 152 layers need fewer multiply-adds than VGG-16, because bottleneck blocks "
        "work on few channels and only the last stages are wide.",
        "The column of costs, and the number of blocks in the third group, where nearly all of the depth is."),
    "resnet/table-2": Learn(
        "Top-1 error on ImageNet of plain networks and ResNets, 18 and 34 layers each, with shortcuts that have no "
        "parameters.",
        "The four networks differ in nothing but depth and shortcuts, so the table isolates them: without shortcuts 34 "
        "layers are worse than 18, with them they are better.",
        "The sign of the difference between the rows in each column: it turns round."),
    "resnet/figure-4": Learn(
        "The training of the four networks of table 2: thin lines training error, bold ones validation error.",
        "The gap of table 2 is there from the start and in the training error. ResNet-18 ends where plain-18 ends, but "
        "gets there sooner: shortcuts make learning easier before they make it better.",
        "Left: the 34-layer curve above the 18-layer one. Right: the other way round."),
    "resnet/footnote-3": Learn(
        "Plain networks trained three times as long.",
        "If depth only slowed training down, more steps would mend it. They do not, so the degradation is no matter of "
        "patience.",
        "Whether the deeper plain network's training error comes below the shallower one's at the end."),
    "resnet/signal-health": Learn(
        "How strong the signals are on their way forward and the gradients on their way back, layer by layer, in plain "
        "networks with batch normalisation.",
        "The usual suspect was the vanishing gradient. Signals and gradients turn out to be healthy, so something else "
        "makes deep plain networks hard to train.",
        "The curves over depth: neither variances nor norms fall towards zero."),
    "resnet/table-3": Learn(
        "Errors on ImageNet with ten crops: VGG and others, plain-34, three kinds of shortcuts (A, B, C), and ResNets "
        "of "
        "50 to 152 layers.",
        "Two answers in one table: the kind of shortcut hardly matters, so the identity is what helps; and with "
        "bottlenecks depth goes on paying up to 152 layers.",
        "34 A, B and C beside each other, then the fall from 50 to 101 to 152."),
    "resnet/footnote-4": Learn(
        "Deep networks of bottleneck blocks beside ones of the usual blocks, with and without shortcuts.",
        "Bottlenecks were chosen for their cost alone. The footnote says so: residual networks without them get better "
        "with depth too, and plain ones with them degrade as others do.",
        "The sign of the difference between depths in each pair."),
    "resnet/table-4": Learn(
        "Single networks on ImageNet, tested at several sizes of the picture.",
        "One network of 152 layers is better than every earlier average of several networks.",
        "The last row against all rows above it; compare the same rows of table 3 to see what the way of testing "
        "gives."),
    "resnet/table-5": Learn(
        "Averages of several networks, on the challenge's own test server.",
        "The entry that won ILSVRC 2015: six networks, 3.57 % top-5 error.",
        "How much an average of networks gains over the best single one of table 4."),
    "resnet/table-6": Learn(
        "Test error on CIFAR-10 of ResNets of 20 to 1202 layers, beside the methods of the time.",
        "On small pictures the same idea is tested without compromise: error falls up to 110 layers. A network of 1202 "
        "layers still trains, but is worse: now it is overfitting.",
        "The column of errors down to 110, then the step up at 1202; and the parameters, which are few."),
    "resnet/figure-6": Learn(
        "Training curves on CIFAR-10: plain networks left, ResNets in the middle, 110 and 1202 layers right.",
        "The same networks without and with shortcuts, so the order of the curves turns round before your eyes.",
        "Left: the deeper the higher. Middle: the deeper the lower. Right: equal training errors, different test "
        "errors."),
    "resnet/footnote-5": Learn(
        "110 layers trained at the full learning rate from the first step.",
        "The paper lowers the rate at first; the footnote says that this is a matter of some epochs, not of the "
        "result.",
        "How long the curve stays near guessing before it falls, and where it ends."),
    "resnet/figure-7": Learn(
        "How large the responses of the 3x3 layers are: their standard deviation over the test pictures, in the order "
        "of "
        "the layers and sorted.",
        "The idea was that blocks add small corrections to what comes in. Small responses are what that idea predicts.",
        "ResNets below plain networks, and the deeper ResNet below the shallower one."),
    "resnet/one-layer": Learn(
        "Residual functions of one, two and three layers.",
        "With a single layer a block is a linear one with something added; the paper saw no gain from it. The shortcut "
        "needs a nonlinear function beside it.",
        "The row of one layer against the plain network of the same depth."),
    "resnet/table-7": Learn(
        "Finding objects on PASCAL VOC with Faster R-CNN, on VGG-16 and on ResNet-101.",
        "The same detector with another network below it: what was learned for classification carries over.",
        "The gain in mean average precision that no change of the detector made."),
    "resnet/table-8": Learn(
        "The same on COCO, where boxes must fit tightly.",
        "Relatively, the gain is larger under the strict measure: deep features also say where things are.",
        "The two columns: 6.9 points are 17 % more under the loose measure, 6.0 points are 28 % under the strict one."),
    "resnet/accounts": Learn(
        "Sentences of the paper that can be checked by counting: costs, parameters, layers.",
        "A reader can trust what has been counted again. Where a sentence holds only under a reading, that is said.",
        "The claims with *holds only if*."),
    "resnet/lesions": Learn(
        "Blocks taken out of a trained network, or swapped, without training it again.",
        "A plain network or VGG breaks when one layer is missing; a ResNet hardly notices. It works like many short "
        "ways "
        "side by side, a picture that came after the paper (Veit et al. 2016).",
        "The error after one block is gone, and how smoothly it grows with the number of blocks."),
    "resnet/width-depth": Learn(
        "Fewer, wider residual blocks against many narrow ones.",
        "Depth is not all: wide networks of 16 to 40 layers are as good as narrow ones of 1001, and faster "
        "(Zagoruyko and Komodakis 2016).",
        "Rows of like parameters and their errors."),
    "resnet/cardinality": Learn(
        "Blocks that sum many equal paths (ResNeXt) against wider or deeper ones of the same cost.",
        "The number of paths is a third dimension beside depth and width, and the one that pays best "
        "(Xie et al. 2017).",
        "Errors down the rows of equal cost, while the number of paths grows."),
    "alexnet/figure-1": Learn(
        "Steps that a network of four layers needs to reach 25 % training error, with ReLU and with tanh.",
        "ReLU does not saturate, so gradients stay large. Several times fewer steps made large networks affordable.",
        "The ratio of the two numbers of steps. Each net has its own learning rate: with a fixed one the comparison "
        "would say little."),
    "alexnet/figure-2": Learn(
        "The network on two GPUs: sizes of the layers, and where the halves see each other.",
        "It is the plan after which the field was built for years. Its numbers can be counted again, and one does not "
        "agree: the input of 224 gives no map of 55.",
        "The number of values from layer to layer, and that almost all parameters are in the last three layers."),
    "alexnet/figure-3": Learn(
        "The 96 kernels of the first layer.",
        "Nobody designed them: edges and colours come out of training. One GPU's half learns shapes without colour, "
        "the "
        "other colour, in every run.",
        "The two halves of the picture."),
    "alexnet/figure-4": Learn(
        "Answers to eight pictures, and for five pictures the training pictures that lie nearest in the last hidden "
        "layer.",
        "Near in that layer means the same thing shown, though the pixels differ: the first sight of features that "
        "search for pictures can use.",
        "The neighbours: other poses and other backgrounds, the same class."),
    "alexnet/table-1": Learn(
        "Errors on ILSVRC-2010: sparse coding, Fisher vectors, and the network.",
        "The best of the features made by hand beside the network, on the same test pictures: 8.7 points of top-5 "
        "error.",
        "The last row."),
    "alexnet/table-2": Learn(
        "Errors on ILSVRC-2012, of one network and of averages of five and seven.",
        "The result that won the challenge, 15.3 % against 26.2 % for the second.",
        "What averaging gives, and what pre-training on a larger set gives."),
    "alexnet/lrn": Learn(
        "A network with and without response normalisation across neighbouring channels.",
        "It helped by one to two points then; batch normalisation has taken its place. A good example of a part that "
        "did "
        "not last.",
        "The difference of the errors, beside its spread over seeds."),
    "alexnet/overlapping-pooling": Learn(
        "Pooling windows of 3 at a stride of 2, against windows of 2.",
        "A small gain, 0.4 points, for almost nothing.",
        "Whether the difference is larger than the spread over seeds at all."),
    "alexnet/dropout": Learn(
        "Training with and without dropout in the wide layers.",
        "Sixty million parameters and a million pictures: without dropout the network learns its pictures by heart.",
        "Training and test error together: dropout raises the first and lowers the second."),
    "alexnet/groups": Learn(
        "Two groups of channels on two GPUs, against one GPU with half of the kernels in each layer.",
        "The memory of one GPU was the limit; the split was a way round it that also lowered the error.",
        "The difference of the errors; and that the network with half of the kernels also costs half as much."),
    "alexnet/two-gpus": Learn(
        "The network computed by two processes with half of the kernels each, and what they send each other.",
        "It is model parallelism: where the halves meet is part of the network's design, since each meeting costs "
        "communication. Two processes compute the same function as one with two groups.",
        "Values sent a picture at each place: conv3 takes two thirds of all, the wide layers little."),
    "alexnet/colour": Learn(
        "Training with and without a random change of colour along the principal components.",
        "What an object is does not depend on the light. More than one point of top-1 error.",
        "The difference in test error, not in training error."),
    "alexnet/crops-and-flips": Learn(
        "Training with and without random crops and mirror images.",
        "2048 versions of each picture: without them the network overfits so much that a smaller one would be needed.",
        "The gap between training and test error."),
    "alexnet/weight-decay": Learn(
        "Training with and without weight decay of 0.0005.",
        "It was known to lower the test error. Here it lowers the training error too: it helps to learn, not only to "
        "generalise.",
        "The training error."),
    "alexnet/bias-one": Learn(
        "Biases that start at 1 in some layers, against 0.",
        "A ReLU that gets positive inputs at first has a gradient from the first step.",
        "The beginning of the curves."),
    "alexnet/middle-convolution": Learn(
        "The network with a middle convolution taken away.",
        "Each has about 1 % of the parameters and costs 2 points: depth matters more than size. The deeper "
        "networks that followed took it at its word.",
        "The loss for each layer beside its share of the parameters."),
    "alexnet/retrieval": Learn(
        "Training pictures found by their features, by their pixels, and by short binary codes.",
        "The paper proposed codes from an auto-encoder on the features; it is how large collections are searched.",
        "Precision among the first k, and the time of a search."),
    "alexnet/accounts": Learn(
        "Sentences of the paper that can be checked by counting: parameters, neurons, crops.",
        "The counts of the abstract are round; here they stand to the last digit.",
        "The claims with *holds only if*."),
    "history/numbers": Learn(
        "Numbers that the two reviews print: ten counted from the networks, the others listed with their source.",
        "Numbers travel from review to review. A count shows which of them were true: GoogLeNet has no twelfth of "
        "AlexNet's parameters, but between an eighth and a ninth.",
        "The verdicts *fails* and *holds only if*, and the reasons beside them."),
}
