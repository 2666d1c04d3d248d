"""Which results both READMEs show: those that someone who chooses a tool asks for, misses included."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Highlight:
    """A row of `results/FILE.json`, and what it answers, in English and in Chinese."""

    file: str
    row: str
    """What its name begins with."""
    target: str
    """What its target begins with, where several rows have one name."""
    en: str
    zh: str
    peer_en: str
    peer_zh: str
    figure: str = ""
    """How the name of the row ends whose figure is shown, where that is another one than the target's."""


HIGHLIGHTS = (
    Highlight(
        "defaults", "sign-digits: ", "no less than fine-tuned",
        "2,062 photographs of hand signs, 10 classes: test accuracy of `falconet train photos`",
        "2,062 张手势照片，10 类：`falconet train photos` 的测试准确率",
        "the same network, fine-tuned by hand", "手工微调同一网络",
    ),
    Highlight(
        "defaults", "CIFAR-10, 50 a class: ", "no less than fine-tuned",
        "50 pictures a class (CIFAR-10): test accuracy",
        "每类 50 张图片（CIFAR-10）：测试准确率",
        "the same network, fine-tuned by hand", "手工微调同一网络",
    ),
    Highlight(
        "defaults", "banking77: test accuracy of `falconet train` alone", "no less than by hand",
        "texts (banking77, 77 classes): test accuracy",
        "文本（banking77，77 类）：测试准确率",
        "TF-IDF and a linear SVM", "TF-IDF 加线性 SVM",
    ),
    Highlight(
        "defaults", "spoken-digits: test accuracy", "no less than by hand",
        "recordings (spoken digits): test accuracy",
        "录音（语音数字）：测试准确率",
        "MFCC and an SVM", "MFCC 加 SVM",
    ),
    Highlight(
        "accuracy-mnist-best", "mnist", "",
        "MNIST, recipe `mnist-best`: test error",
        "MNIST，配方 `mnist-best`：测试错误率",
        "LeNet-5, 1998", "1998 年的 LeNet-5",
    ),
    Highlight(
        "compression-resnet20-30x", "ResNet-20", "",
        "ResNet-20 on CIFAR-10 in a thirtieth of its bytes: accuracy lost, of at most 0.5 points",
        "CIFAR-10 上的 ResNet-20 压缩到原大小的三十分之一：准确率损失，目标不超过 0.5 个百分点",
        "–", "–", "points lost",
    ),
    Highlight(
        "training-throughput", "MNIST, lenet_relu", "2x PyTorch",
        "LeNet on MNIST, 2 threads: images trained a second, of at least twice the tutorial's",
        "MNIST 上训练 LeNet，2 线程：每秒训练图像数，目标为教程的两倍以上",
        "PyTorch's tutorial, untuned", "PyTorch 教程（未调优）",
    ),
    Highlight(
        "defaults", "2,062 photographs: time", "",
        "the 2,062 photographs: time to 95 % of the best validation accuracy, of at most half the time by hand",
        "上述 2,062 张照片：达到最佳验证准确率 95 % 所需的时间，目标为手工方式的一半以内",
        "first useful model by hand", "手工编写代码得到首个可用模型",
    ),
)  # fmt: skip

WORDS = {
    "en": {
        "head": ("what", "Falconet", "beside it", "target"), "colon": ": ",
        "met": "met", "missed": "missed", "not shown": "not shown", "withdrawn": "withdrawn",
    },
    "zh": {
        "head": ("内容", "Falconet", "对照", "目标"), "colon": "：",
        "met": "达到", "missed": "未达到", "not shown": "未能证实", "withdrawn": "已撤回",
        "points": "个百分点", "images/s": "张/秒", "s": "秒",
    },
}  # fmt: skip
"""Headings, verdicts and units of the table."""
