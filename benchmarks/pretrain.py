"""Make the small trunks that ship with the package: people of another synthetic world, first cut out, then in their scenes.

    python benchmarks/pretrain.py hdl-teacher        # one core, about half an hour
    python benchmarks/pretrain.py hdl-student-fast

The papers start from ImageNet; this is our stand-in for it: identities, places and cameras of seed 9001, which no demo uses.
Writes person_search_nb/weights/<model>.safetensors in float16.
"""
import argparse
import math
from pathlib import Path

import torch
from tqdm.auto import tqdm

from person_search_nb.anchors import fit_heights
from person_search_nb.datasets import open_dataset
from person_search_nb.models import build_model, load_model, load_trunk, save_model
from person_search_nb.roi_align import roi_align
from person_search_nb.training import TrainConfig, train

WORLD = 'synth:tiny?seed=9001&train_ids=2400&train_scenes=3600'
WIDTH = {'hdl-teacher': 0.25, 'hdl-student-fast': 0.5}


def cut_out(data, smallest=36):
    "All labelled people at least `smallest` px high: (scene, box, identity)."
    people = []
    for i in range(len(data)):
        t = data.truth(i)
        people += [(i, b, int(p)) for b, p in zip(t['boxes'], t['person_id']) if p >= 0 and b[3] - b[1] >= smallest]
    return people


def learn_people(model, data, steps, batch=64, size=(96, 40), lr=1e-3):
    "Identity classification of cut-out people, with random light: the trunk and the head become a plain re-id network."
    people, params = cut_out(data), list(model.parameters())
    opt = torch.optim.AdamW(params, lr, weight_decay=0.05)
    model.train()
    right, bar = 0., tqdm(range(steps), desc='people')
    for step in bar:
        if step * batch % len(people) < batch: order = torch.randperm(len(people)).tolist()
        pick = [people[order[(step * batch + k) % len(people)]] for k in range(batch)]
        crops = []
        for i, box, _ in pick:
            jitter = torch.randn(4) * 0.04 * (box[3] - box[1])
            crop = roi_align(data[i][0][None], [(box + jitter)[None]], size, 1.0, sampling_ratio=1, aligned=False)
            crops.append((crop.flip(-1) if torch.rand(()) < 0.5 else crop) * (1 + 0.25 * torch.randn(1, 3, 1, 1)).clamp(0.4, 1.8))
        x, _ = model.batch(list(torch.cat(crops).clamp(0, 1)))
        x, _ = model.attention[3](model.blocks[3](model.pooled_norm(model.trunk(x))))
        embedding = model.embedding_norm(model.project(x.mean((2, 3))))
        ids = torch.tensor([p for _, _, p in pick])
        loss = model.id_loss(embedding, ids)
        for g in opt.param_groups: g['lr'] = lr * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        opt.zero_grad(); loss.backward(); opt.step()
        right += 0.02 * ((model.identity_logits(embedding).argmax(1) == ids).float().mean().item() - right)
        bar.set_postfix(loss=f'{loss.item():.2f}', right=f'{right:.2f}')


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('model', choices=list(WIDTH))
    p.add_argument('--people-steps', type=int, default=800)
    p.add_argument('--scene-steps', type=int, default=1800)
    p.add_argument('--out', default='runs/pretrain')
    a = p.parse_args()
    torch.manual_seed(0)
    data = open_dataset(WORLD, 'train', cache=True, workers=2)
    out = Path(a.out) / a.model
    model = build_model(a.model, data.num_ids, heights=fit_heights(data.heights()), width=WIDTH[a.model], rois_per_image=12, proposals=(60, 30))
    learn_people(model, data, a.people_steps)
    save_model(model, out / 'people.safetensors')
    config = TrainConfig(epochs=a.scene_steps * 4 / len(data), batch_size=4, optimizer='adamw', lr=1e-3, weight_decay=0.05, schedule='cosine', warmup=100, colour=0.15)
    train(model, data, config, out, label='scenes')
    save_model(model, out / 'model.safetensors')
    # the identity classifier is of no use to others: keep one row of it, so that the file is a complete model
    trunk = load_trunk(build_model(**model.config | dict(num_ids=1)), out / 'model.safetensors')
    save_model(trunk, Path('person_search_nb/weights') / f'{a.model}.safetensors', half=True, made_from=WORLD)


if __name__ == '__main__': main()
