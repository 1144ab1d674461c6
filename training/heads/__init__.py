"""Heads: small classifiers of what customers write, and of images, by transfer learning.

    python -m training.heads dataset EXAMPLES ROOT --task annoyance
    python -m training.heads train SPEC OUT [--resume]
    python -m training.heads classify HEAD < texts

A pre-trained sentence encoder brings the language, and a few dozen labelled texts bring the labels; for
images that is a frozen backbone from ImageNet, and labelled images (``images``). A head is a softmax
layer on the encoder's vectors; for texts, where that is measured to be better, the encoder
itself is tuned to the labels too, with LoRA, as the chat model is for a tenant (``pipeline``).
"""
