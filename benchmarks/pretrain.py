"""Make the small trunks that ship with the package: re-identification of people of another synthetic world.

    python benchmarks/pretrain.py hdl-teacher          # about half an hour on one core
    python benchmarks/pretrain.py hdl-student-fast

The papers start from ImageNet; this is our stand-in for it: identities, places and cameras of seed 9001, which no demo uses.
Three stages, each starting from the last: (1) classify cut-out people, (2) pull together views of one person and push others
away, on cut-outs, (3) the same through RoIAlign, in a window around the person, so that the head learns to read a feature map.
The trunks in the package are from an earlier, untidied form of this script, with the same losses and people: cut-outs were 106x44
windows shifted at random, the student's second stage was 300 steps at 1e-3 (temperature 0.1) and 1,200 at 1.5e-3, and its third
was stopped after 200 of 800 planned steps. This form has not been run whole: expect trunks like them, not the same numbers.
The RPN, the score and the box offsets are not trained here. Writes person_search_nb/weights/<model>.safetensors in float16.
"""
import argparse
import math

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from person_search_nb.anchors import fit_heights
from person_search_nb.datasets import open_dataset
from person_search_nb.models import build_model, save_model
from person_search_nb.roi_align import roi_align

WORLD = 'synth:tiny?seed=9001&train_ids=2400&train_scenes=3600'
SMALLEST = 36  # px; lower people are left out
RECIPES = {    # width, extra arguments; per stage: steps, learning rate, temperature (none for classification), spread of the light
    'hdl-teacher': (0.25, {}, (800, 1e-3, None, 0.25), (500, 1e-3, 0.1, 0.25), (400, 1e-3, 0.12, 0.25)),
    'hdl-student-fast': (0.5, dict(rpn_channels=64), (1800, 1e-3, None, 0.25), (1500, 1.5e-3, 0.15, 0.15), (200, 1e-3, 0.15, 0.15)),
}


def windows(data, context=1.7, size=(136, 68)):
    "Every labelled person in the middle of a window `context` times its height: pictures, identities, width / height of the boxes."
    pictures, ids, aspect = [], [], []
    for i in tqdm(range(len(data)), desc='windows'):
        image, t = data[i]
        boxes, who = t['boxes'], t['person_id']
        keep = (who >= 0) & (boxes[:, 3] - boxes[:, 1] >= SMALLEST)
        boxes, who = boxes[keep], who[keep]
        if not len(boxes): continue
        high, centre = boxes[:, 3] - boxes[:, 1], (boxes[:, :2] + boxes[:, 2:]) / 2
        half = torch.stack([high * context / 4, high * context / 2], 1)
        pictures.append((roi_align(image[None], [torch.cat([centre - half, centre + half], 1)], size, 1.0, aligned=False) * 255).round().byte())
        ids.append(who); aspect.append((boxes[:, 2] - boxes[:, 0]) / high)
    return torch.cat(pictures), torch.cat(ids), torch.cat(aspect)


def embed(model, x, aspect, through_head):
    "Embeddings of people in the middle of windows: of the person's box by RoIAlign, or of the cut-out person as a whole picture."
    n, _, h, w = x.shape
    high = h / 1.7
    half = torch.stack([aspect * high / 2, torch.full_like(aspect, high / 2)], 1)
    centre = torch.tensor([w / 2, h / 2])
    boxes = torch.cat([centre - half, centre + half], 1) + torch.randn(n, 4) * 0.03 * high
    if through_head:
        return model.head(model.trunk(model.batch(list(x))[0]), list(boxes[:, None])).embedding
    cut = torch.cat([roi_align(x[i:i + 1], [boxes[i:i + 1]], (96, 40), 1.0, sampling_ratio=1, aligned=False) for i in range(n)])
    y, _ = model.attention[3](model.blocks[3](model.pooled_norm(model.trunk(model.batch(list(cut))[0]))))
    return model.embedding_norm(model.project(y.mean((2, 3))))


def draw(ids, people, views):
    "Rows of `people` random people, `views` of each."
    rows = [r for r in (torch.nonzero(ids == i)[:, 0] for i in range(int(ids.max()) + 1)) if len(r) >= views]
    while True: yield torch.cat([rows[i][torch.randperm(len(rows[i]))[:views]] for i in torch.randperm(len(rows))[:people].tolist()])


def stage(model, data, name, steps, lr, temperature, light, through_head=False):
    pictures, ids, aspect = data
    opt, draws = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.05), draw(ids, 24, 4)
    bar = tqdm(range(steps), desc=name)
    for step in bar:
        pick = next(draws) if temperature else torch.randint(len(ids), (64,))
        x, y = pictures[pick].float() / 255, ids[pick]
        if through_head: x = F.interpolate(x, scale_factor=float(torch.empty(()).uniform_(0.5, 1.25)), mode='bilinear', antialias=True)
        mirrored = torch.rand(len(x)) < 0.5
        x[mirrored] = x[mirrored].flip(-1)
        e = embed(model, (x * (1 + light * torch.randn(len(x), 3, 1, 1)).clamp(0.4, 1.8)).clamp(0, 1), aspect[pick], through_head)
        if temperature:  # supervised contrastive loss: the other views of a person against everybody else in the batch
            unit = F.normalize(e, dim=1)
            logits = (unit @ unit.T / temperature).fill_diagonal_(-1e4)
            same = (y[:, None] == y).float().fill_diagonal_(0)
            loss = -(F.log_softmax(logits, 1) * same).sum(1).div(same.sum(1)).mean()
        else: loss = model.id_loss(e, y)
        for g in opt.param_groups: g['lr'] = lr * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        opt.zero_grad(); loss.backward(); opt.step()
        bar.set_postfix(loss=f'{loss.item():.2f}')


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('model', choices=list(RECIPES))
    p.add_argument('--steps', type=float, default=1.0, help='share of the steps, for a quick try')
    p.add_argument('--out', default='person_search_nb/weights', help='folder for <model>.safetensors')
    a = p.parse_args()
    width, extra, *stages = RECIPES[a.model]
    torch.manual_seed(0)
    scenes = open_dataset(WORLD, 'train', cache=True, workers=2)
    make = lambda ids: build_model(a.model, ids, heights=fit_heights(scenes.heights()), width=width, rois_per_image=12, proposals=(60, 30), **extra)
    model, data = make(scenes.num_ids).train(), windows(scenes)
    for k, (name, (steps, *how)) in enumerate(zip(('classify', 'contrast', 'contrast in scenes'), stages)):
        stage(model, data, name, max(1, round(steps * a.steps)), *how, through_head=k == 2)
    trunk = make(1)  # the classifier of these people is of no use to others: the file holds a model of one identity
    trunk.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith('id_loss.')}, strict=False)
    save_model(trunk, f'{a.out}/{a.model}.safetensors', half=True, made_from=WORLD)


if __name__ == '__main__': main()
