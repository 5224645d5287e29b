"""Make small trunks of every backbone: person search in another synthetic world, where the papers have ImageNet.

    make trunks                                      # all below that are not there yet: hours; goes on where it was stopped
    python .ci/trunks.py --list                      # what there is, and what each takes
    python .ci/trunks.py resnet18 vgg16 --how taught # these alone
    python .ci/trunks.py resnet18 --scenes 48 --steps 0.01 --out runs/try      # proves only that it runs

People, places and cameras are of seed 9001, which no demo and no table uses. Each trunk comes in two versions from the same random
weights, scenes, labels and steps: `labels`, and `taught`, which has one more loss, prediction distillation with everybody of that
world for a class: the teacher looks once at every person, from its true box; its embeddings are the class weights, its own soft
assignment of a person is the target, and the student's embedding has to find the same one.

Stages are of two kinds. (1) Cut-out people: views of one person are pulled together, everybody else in the batch is pushed away
(supervised contrastive loss); from random weights this takes off far sooner than a classifier of thousands. (2) Whole scenes: the
detection losses, and the same contrastive loss between the regions of interest. There people keep to bouts of eight scenes, so that a
batch shows each of them about four times; the teacher's last stage also remembers the people of the batches before, to be told apart
from. Written are OUT/labels/NAME.safetensors and OUT/taught/NAME.safetensors, in float16, each with a card NAME.md beside it that
says what it was trained on, what for, and what it finds in a world it has not seen. `person-search ablate --trunks OUT/taught` and
`--set start=OUT/taught/NAME.safetensors` start from them. Those that ship in `person_search_nb/weights` were made by an earlier form
of this script: the teacher's third stage went on from a float16 copy of its second, so a new run gives trunks like them, not the same bytes.
"""
import argparse
import hashlib
import math
import multiprocessing as mp
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from person_search_nb.anchors import fit_heights
from person_search_nb.boxes import box_area, clip_boxes
from person_search_nb.datasets import open_dataset
from person_search_nb.distillation_losses import prediction_distillation
from person_search_nb.evaluation import embed_queries, embed_truth, score_detections
from person_search_nb.files import atomic_write
from person_search_nb.model_files import load_trunk, save_model, shipped_trunk
from person_search_nb.models import build_model, load_model
from person_search_nb.people import stream
from person_search_nb.roi_align import roi_align
from person_search_nb.streets import SYNTH
from person_search_nb.synthetic import SynthWorld

BOUT, PEOPLE = 8, 12  # scenes of a bout, people who appear in it
SCENES = 4800
KEPT = 200  # steps between two checkpoints
SMALLEST, HIDDEN = 40, .5  # px, share: who is smaller or more hidden teaches detection only
TAUGHT, SHARP = 5., .05  # weight and temperature of the distillation: at 0.1 the soft assignment says little of fine differences
FRESH = 'synth:tiny?seed=9002&train_scenes=8&train_ids=8'  # where the cards' numbers are from: people nobody has seen


@dataclass(frozen=True)
class Trunk:
    "How one trunk is made."
    model: dict              # arguments of `build_model`
    stages: tuple            # steps, learning rate, embeddings remembered; the first on cut-outs, the others in scenes; all in scenes after a `start`
    size: tuple = (96, 40)   # px of a cut-out
    seconds: float = 1.      # a step, on one core of 2026: only for saying what it will take
    hows: tuple = ('labels', 'taught')
    start: str = ''          # of `shipped_trunk`; none: random weights
    style: str = 'plain'     # of the scenes: a key of `LOOKS`
    zoom: tuple = (.75, 1.2) # by how much at least and at most; of larger scenes a window of their former size is kept
    teacher: str = 'hdl-teacher'  # of `shipped_trunk`
    scene: tuple | None = None    # (height, width) px into which the file says that pictures are fitted
    bf16: bool = False       # where it is faster: a processor with AMX


# a queue of strangers is nothing to start from
def plain(trunk, seconds): return Trunk(dict(name='oim', width=.25, anchors='pedestrian', trunk=trunk, queue=1), ((1000, 1e-3, 0),), seconds=seconds)


def student(name, **kw): return dict(name=name, width=.625, rpn_channels=64, **kw)


RICH = dict(style='rich', zoom=(.6, 1.6), scene=(450, 800))
RICH_TEACHER = Trunk(dict(name='hdl-teacher', width=.25, factored=True), ((3000, 6e-4, 1000),), seconds=.6, hows=('labels',), **RICH | dict(start='hdl-teacher', style='bare', bf16=True))
STUDENT = (1000, 2e-3, 0), (1000, 1e-3, 0), (2000, 1e-3, 0)
TRUNKS = {
    'hdl-teacher': Trunk(dict(name='hdl-teacher', width=.25, factored=True), ((1200, 1e-3, 0), (900, 7e-4, 0), (720, 5e-4, 0), (2000, 8e-4, 1000)), hows=('labels',)),
    'hdl-student-fast': Trunk(student('hdl-student-fast'), STUDENT, seconds=.5),
    'hdl-student': Trunk(student('hdl-student', factored=True), STUDENT, seconds=.8),
    'hdl-student-fast-no-attention': Trunk(student('hdl-student-fast', attention='none'), STUDENT, seconds=.4),
    'hdl-student-no-attention': Trunk(student('hdl-student', attention='none', factored=True), STUDENT, seconds=.7),
    'resnet50-attention': Trunk(dict(name='hdl-teacher', width=.25, factored=True), ((1000, 1e-3, 0),)),
    'vgg16': Trunk(dict(name='e2e-rss', width=.125, anchors='pedestrian', id_loss='softmax', batch_norm=True), ((1000, 1e-3, 0),), (112, 112)),
    'hdl-teacher-rich': RICH_TEACHER,
    'hdl-teacher-longer': replace(RICH_TEACHER, style='plain'),  # as many steps on plain scenes, to tell what the drawings bring
    'hdl-student-fast-rich': Trunk(student('hdl-student-fast'), ((3000, 1e-3, 0),), seconds=.5, **RICH | dict(start='hdl-student-fast-taught', teacher='hdl-teacher-rich')),
    **{name: plain(name, seconds) for name, seconds in (('resnet18', .5), ('resnet50', .8), ('googlenet', .8), ('densenet121', 1.))},
}


class Bouts(SynthWorld):
    "A world whose people keep to a bout of `BOUT` scenes in a row, each scene by another camera."

    @cached_property
    def plan(self):
        cfg, rng = self.config, stream(self.config.seed, 'plan', self._split)
        n = len(self)
        camera = np.concatenate([rng.permutation(cfg.cameras)[:BOUT] for _ in range(n // BOUT)])
        count = np.clip(rng.poisson(cfg.people, n), 2, PEOPLE)
        start = np.concatenate([[0], np.cumsum(count)])
        person = np.concatenate([rng.permutation(PEOPLE)[:c] + i // BOUT * PEOPLE for i, c in enumerate(count)])
        return camera, start, np.where(rng.random(len(person)) < cfg.labelled, person, -1)


LOOKS = dict(plain=dict(cameras=24), rich=dict(cameras=96, style='rich'), bare=dict(cameras=96, style='rich', without=('background',)))


@lru_cache(1)
def world(style, number):
    return Bouts(replace(SYNTH['tiny'], seed=9001, train_scenes=number, train_ids=number // BOUT * PEOPLE, people=6., labelled=.9, **LOOKS[style]))


def painted(job): return job[-1], world(*job[:-1]).render(job[-1])


def scenes(style, number, work):
    "All pictures (S, h, w, 3) uint8 and truths; painted once (4,800 on two cores: two minutes, rich ones six), then read from a file in `work`."
    here = world(style, number)
    cache, truths = work / f'scenes9001-{style}-{number}.npy', here.truths(progress=True)
    if not cache.exists():
        pictures = np.empty((number, *here.config.size, 3), np.uint8)
        jobs = [(style, number, i) for i in np.argsort(here.plan[0], kind='stable').tolist()]
        with mp.Pool() as pool:
            for i, picture in tqdm(pool.imap_unordered(painted, jobs, 8), 'painting', number): pictures[i] = picture
        part = cache.with_suffix('.part.npy')
        np.save(part, pictures)
        part.rename(cache)
    return np.load(cache, mmap_mode='r'), truths


class People:
    "Everybody in the scenes, one row each: who they are, where their scene's rows start, and what a teacher makes of them."

    def __init__(self, truths):
        self.ids = torch.from_numpy(np.concatenate([t['person_id'] for t in truths]))
        self.start = np.concatenate([[0], np.cumsum([len(t['boxes']) for t in truths])])
        self.taught, self.memory, self.remember = None, None, 0

    def rows(self, i, t):
        "The row of each person of scene `i`; -1 where the picture does not show enough."
        seen = (t['boxes'][:, 3] - t['boxes'][:, 1] >= SMALLEST) & (t['occluded'] < HIDDEN)
        return torch.from_numpy(np.where(seen, np.arange(self.start[i], self.start[i + 1]), -1))

    def losses(self, embedding, rows, picture=None):
        "Contrastive loss between those with an identity; with a teacher also KL(teacher || student) of who among all people resembles them."
        known = self.ids[rows] >= 0
        out = dict(id=contrast(embedding[known], self.ids[rows][known], None if picture is None else picture[known], self.memory))
        if self.taught is not None:
            mine, taught = F.normalize(embedding, dim=1), self.taught[rows]
            out['taught'] = TAUGHT * prediction_distillation(mine @ self.taught.T / SHARP, taught @ self.taught.T / SHARP, 1., hinton=True)
        if self.remember:  # a bout's people do not come back soon: those of the last batches are all others
            new = F.normalize(embedding[known].detach(), dim=1)
            self.memory = (new if self.memory is None else torch.cat([new, self.memory]))[:self.remember]
        return out


def look(model, pictures, truths, rows, mirrored=False):
    "Unit embeddings of everybody in these scenes, from the true boxes."
    images, boxes = [tensor(pictures[i]) for i in rows], [torch.from_numpy(truths[i]['boxes']) for i in rows]
    if mirrored:
        w = images[0].shape[2]
        images, boxes = [i.flip(-1) for i in images], [torch.stack([w - b[:, 2], b[:, 1], w - b[:, 0], b[:, 3]], 1) for b in boxes]
    return model.embed(images, boxes)


@torch.no_grad()
def opinions(path, pictures, truths, batch=8):
    "What the teacher in the file `path` makes of everybody: (P, D) unit embeddings, the mean of the scene and its mirror image."
    teacher, batches = load_model(path).eval(), [range(i, min(i + batch, len(truths))) for i in range(0, len(truths), batch)]
    return torch.cat([F.normalize(look(teacher, pictures, truths, b) + look(teacher, pictures, truths, b, True), dim=1) for b in tqdm(batches, 'the teacher looks')])


def directions(e, width):
    "(P, D) unit embeddings in their `width` main directions, unit length again (of the teacher's 512 numbers 320 keep 99.9% of the square)."
    return F.normalize(e @ torch.linalg.svd(e, full_matrices=False)[2][:width].T, dim=1)


def tensor(picture): return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def cutouts(pictures, truths, people, size):
    "Every labelled person stretched to `size`, cut out a little askew: (N, 3, *size) uint8, and their rows."
    cuts, rows = [], []
    for i, (picture, t) in enumerate(zip(tqdm(pictures, 'cutting out'), truths)):
        row, boxes = people.rows(i, t), torch.from_numpy(t['boxes'])
        boxes, row = boxes[known := (row >= 0) & (people.ids[row] >= 0)], row[known]
        if not len(row): continue
        boxes = boxes + .03 * (boxes[:, 3:] - boxes[:, 1:2]) * torch.randn(len(boxes), 4)
        cuts.append((roi_align(tensor(picture)[None], [boxes], size, 1.0, aligned=False) * 255).round().byte())
        rows.append(row)
    return torch.cat(cuts), torch.cat(rows)


def light(x, spread=.25):
    "A random gain of each colour channel of each picture: cameras differ."
    return (x * (1 + spread * torch.randn(len(x), 3, 1, 1)).clamp(.4, 1.8)).clamp(0, 1)


def contrast(e, ids, picture=None, others=None, temperature=.1):
    """Supervised contrastive loss: for each region with a positive, -log softmax of its positives' cosines among all others.
    Regions of one person in one picture are left out of each other's sum; `others` (M, D), unit length, are further people to tell apart."""
    unit = F.normalize(e, dim=1)
    same, self = ids[:, None] == ids, torch.eye(len(ids), dtype=torch.bool)
    logits = (unit @ unit.T / temperature).masked_fill(self if picture is None else same & (picture[:, None] == picture), -1e4)
    p = F.log_softmax(logits if others is None else torch.cat([logits, unit @ others.T / temperature], 1), 1)[:, :len(e)]
    positive = (same & (logits > -1e3)).float()
    has = positive.sum(1) > 0
    return -((p * positive).sum(1)[has] / positive.sum(1)[has]).mean()


def optimise(model, steps, lr, name, losses, keep):
    "AdamW with a warm-up and a cosine; `losses()` gives the dict of losses of one step. Every `KEPT` steps all is kept in the file `keep`, to go on from."
    opt, first = torch.optim.AdamW(model.parameters(), lr, weight_decay=.05, fused=True), 0
    if keep.exists():
        kept = torch.load(keep, weights_only=True)
        model.load_state_dict(kept['model']); opt.load_state_dict(kept['opt']); torch.set_rng_state(kept['rng'])
        first = kept['step']
    bar, shown = tqdm(range(first, steps), name, steps, initial=first, mininterval=10), {}
    for step in bar:
        for g in opt.param_groups: g['lr'] = lr * min(1, (step + 1) / 100) * .5 * (1 + math.cos(math.pi * step / steps))
        out = losses()
        opt.zero_grad(); sum(out.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.)
        opt.step()
        shown = {k: .98 * shown.get(k, v.item()) + .02 * v.item() for k, v in out.items()}
        bar.set_postfix({k: f'{v:.3f}' for k, v in shown.items()}, refresh=False)
        if step % KEPT == KEPT - 1:
            torch.save(dict(model=model.state_dict(), opt=opt.state_dict(), rng=torch.get_rng_state(), step=step + 1), part := keep.with_suffix('.part'))
            part.rename(keep)


def learn_cutouts(model, data, people, number=24, views=4):
    pictures, rows = data
    ids = people.ids[rows]
    mine = [r for r in torch.argsort(ids, stable=True).split(torch.bincount(ids).tolist()) if len(r) >= views]
    def losses():
        pick = torch.cat([mine[i][torch.randperm(len(mine[i]))[:views]] for i in torch.randperm(len(mine))[:number].tolist()])
        x = pictures[pick].float() / 255
        mirrored = torch.rand(len(x)) < .5
        x[mirrored] = x[mirrored].flip(-1)
        return people.losses(model.roi_head.read(model.trunk(model.batch(list(light(x)))[0])).embedding, rows[pick])
    return losses


def windowed(x, targets, size):
    "A random window of this size, and of the people those at least half of whom are in it."
    h, w = x.shape[2:]
    top, left = (int(torch.randint(a - b + 1, ())) for a, b in zip((h, w), size))
    for t in targets:
        boxes = t['boxes'] - torch.tensor([left, top] * 2)
        shown = clip_boxes(boxes, size)
        kept = box_area(shown) >= .5 * box_area(boxes)
        t.update(boxes=shown[kept], person_id=t['person_id'][kept])
    return x[:, :, top:top + size[0], left:left + size[1]]


def learn_scenes(model, pictures, truths, people, trunk):
    order = []
    def losses():
        if not order: order.extend(torch.randperm(len(truths) // BOUT).tolist())
        rows = range(BOUT * order[0], BOUT * order.pop(0) + BOUT)
        x, targets = light(torch.stack([tensor(pictures[i]) for i in rows])), []
        h, w = x.shape[2:]
        zoom = math.exp(float(torch.empty(()).uniform_(*map(math.log, trunk.zoom))))
        size = round(h * zoom), round(w * zoom)
        x = F.interpolate(x, size, mode='bilinear', antialias=True)
        for k, i in enumerate(rows):
            boxes = torch.from_numpy(truths[i]['boxes']) * torch.tensor([size[1] / w, size[0] / h] * 2)
            if torch.rand(()) < .5: x[k], boxes = x[k].flip(-1), torch.stack([size[1] - boxes[:, 2], boxes[:, 1], size[1] - boxes[:, 0], boxes[:, 3]], 1)
            targets.append(dict(boxes=boxes, person_id=people.rows(i, truths[i])))
        if zoom > 1: x = windowed(x, targets, (h, w))
        x, sizes = model.batch(list(x))
        with torch.autocast('cpu', torch.bfloat16, enabled=trunk.bf16):
            features = model.trunk(x)
            proposals, _, out = model.rpn(features, sizes, targets)
            rois = model.sample_rois(proposals, targets)
            head = model.head(features, rois.boxes, rois.positive)
        head = replace(head, **{k: v.float() for k, v in vars(head).items() if v is not None})
        out |= model.head_losses(head, replace(rois, person_id=torch.full_like(rois.person_id, -1)))  # without its classifier, instead:
        out['rpn_box'] = 5 * out['rpn_box']  # far smaller than the others, and proposals are only as good as it
        row, picture = (v[rois.positive] for v in (rois.person_id, torch.repeat_interleave(torch.tensor([len(b) for b in rois.boxes]))))
        return out | people.losses(head.embedding[row >= 0], row[row >= 0], picture[row >= 0])
    return losses


def in_scenes(trunk, stage): return bool(stage or trunk.start)
def where(trunk, stage): return 'in scenes' if in_scenes(trunk, stage) else 'on cut-outs'


class Makings:
    "The scenes, the people in them, and what the teacher makes of these, each made once and when it is needed."

    def __init__(self, style, number, work, teacher):
        self.style, self.number, self.work, self.teacher = style, number, work, teacher
        work.mkdir(parents=True, exist_ok=True)

    @cached_property
    def scenes(self): return scenes(self.style, self.number, self.work)

    @cached_property
    def opinions(self):
        "Of all networks that it teaches the teacher looks once; kept in a file."
        file = self.work / f'opinions-{self.style}-{self.number}-{hashlib.sha256(Path(self.teacher).read_bytes()).hexdigest()[:12]}.npy'
        if not file.exists():
            np.save(part := file.with_suffix('.part.npy'), opinions(self.teacher, *self.scenes).numpy())
            part.rename(file)
        return torch.from_numpy(np.load(file))

    @cached_property
    def heights(self): return fit_heights(np.concatenate([t['boxes'][:, 3] - t['boxes'][:, 1] for t in self.scenes[1]]))

    def people(self, width):
        "Everybody; with a `width` also the teacher's opinion, in so many numbers."
        people = People(self.scenes[1])
        if width: people.taught = directions(self.opinions, width)
        return people


def fresh_scores(model, spec):
    "Search among people nobody has seen, from their true boxes."
    gallery, queries = (open_dataset(spec, s, progress=False) for s in ('gallery', 'query'))
    found = embed_truth(model.eval(), gallery, progress=False)
    return score_detections(found, embed_queries(model, queries, gallery, progress=False), gallery, queries)


CARD = """# {name}, {how}

* **What it is.** `{settings}`, {params:,} parameters, in float16. Its classifier, of the people it has seen, is left out.
* **How it was made.** `python .ci/trunks.py {name} --how {how}{scenes_given}`: from {start}, {stages}, AdamW with a cosine, on {scenes:,} synthetic scenes (`synth:tiny`, {style}, seed 9001, {cameras} cameras). {loss} torch {torch}, {precision} on a CPU.
* **For.** {use} **Not for** deciding anything about a person: it has never seen a photograph, let alone one of you.
* **What it finds.** On people it has not seen (`{fresh}`), from their true boxes: mAP {mAP:.3f}, top-1 {top1:.3f}. {queries} queries, one world, one seed of weights.
"""
LOSSES = dict(labels='Labels only.', taught='Labels, and prediction distillation from {teacher}, with everybody of that world for a class.')
USES = {False: 'A start for trainings whose papers start from ImageNet. It has seen cut-outs alone, and finds nobody in a scene yet.',
        True: 'A start for other trainings; searching drawn people as it is.'}
PHOTOGRAPHS = 'A first look at photographs, and a start for trainings on one\'s own; `benchmarks/real.md` says how far it goes on real frames.'


def card(name, how, number, stages, model, teacher):
    trunk = TRUNKS[name]
    look = '&'.join(f"{k}={','.join(v) if k == 'without' else v}" for k, v in LOOKS[trunk.style].items() if k != 'cameras') or 'style=plain'
    fresh = f'{FRESH}&{look}'
    scores = fresh_scores(model, fresh)
    words = ', then '.join(f'{steps:,} steps {where(trunk, k)}' for k, (steps, *_) in enumerate(stages))
    return CARD.format(name=name, how=how, settings=trunk.model, params=sum(p.numel() for p in model.parameters()), stages=words, scenes=number, style=look.replace('&', ', '), cameras=LOOKS[trunk.style]['cameras'],
                       start=trunk.start or 'random weights', use=PHOTOGRAPHS if trunk.style != 'plain' else USES[in_scenes(trunk, len(stages) - 1)], scenes_given=f' --scenes {number}' * (number != SCENES),
                       precision='bfloat16' if trunk.bf16 else 'float32', loss=LOSSES[how].format(teacher=teacher), torch=torch.__version__.partition('+')[0],
                       fresh=fresh, queries=scores['queries'], mAP=scores['mAP'], top1=scores['top1'])


def make(name, how, makings, out, share=1., moments=None):
    "One trunk and its card in the folder `out`. Stages that are done are not done again."
    trunk, file = TRUNKS[name], out / how / f'{name}.safetensors'
    torch.manual_seed(0)
    # the classifier of these people is of no use to others: the file holds a model of one identity
    model = build_model(**trunk.model, num_ids=1, heights=makings.heights, rois_per_image=12, proposals=(60, 30)).train()
    people = makings.people(model.id_loss.dim if how == 'taught' else 0)
    stages = [(max(1, round(steps * share)), *rest) for steps, *rest in trunk.stages]
    if trunk.start: load_trunk(model, shipped_trunk(trunk.start))
    for k, (steps, lr, people.remember) in enumerate(stages):
        done = makings.work / f'{name}-{how}-{k}.safetensors'
        keep = done.with_suffix('.pt')
        if done.exists(): load_trunk(model, done); continue
        losses = learn_scenes(model, *makings.scenes, people, trunk) if in_scenes(trunk, k) else learn_cutouts(model, cutouts(*makings.scenes, people, trunk.size), people)
        optimise(model, steps, lr, f'{name}, {how}, {where(trunk, k)}', losses, keep)
        save_model(model, done)
        keep.unlink(missing_ok=True)
        if moments and k < len(stages) - 1: save_model(model, Path(moments) / done.name, half=True)
    model.size = trunk.scene
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file.with_suffix('.md'), card(name, how, makings.number, stages, model, Path(makings.teacher).stem).encode())
    save_model(model, file, half=True, made_from='synth:tiny, seed 9001')  # last: the sign that all is there


def hours(name, how): return sum(s[0] for s in TRUNKS[name].stages) * TRUNKS[name].seconds / 3600


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('names', nargs='*', metavar='NAME', help=f'of {", ".join(TRUNKS)}; none: all')
    p.add_argument('--how', choices=list(LOSSES), help='labels alone, or with the teacher; left out: both')
    p.add_argument('--out', type=Path, default=Path('runs/trunks'), help='folder for labels/NAME.safetensors and taught/NAME.safetensors')
    p.add_argument('--work', type=Path, default=Path('runs/trunks/work'), help='folder for the painted scenes (1.7 GB) and finished stages')
    p.add_argument('--teacher', help='model file of another teacher than the one that ships')
    p.add_argument('--moments', help='folder: all stages but the last are kept there too, for the explorer')
    p.add_argument('--steps', type=float, default=1.0, help='share of the steps, for a quick try')
    p.add_argument('--scenes', type=int, default=SCENES, help='a multiple of 8; fewer for a quick try')
    p.add_argument('--list', action='store_true', help='say what would be made, and stop')
    a = p.parse_args()
    if unknown := [n for n in a.names if n not in TRUNKS]: p.error(f'no trunk {unknown[0]}; there are {", ".join(TRUNKS)}')
    jobs = [(n, how) for n in a.names or TRUNKS for how in TRUNKS[n].hows if a.how in (None, how)]
    missing = [j for j in jobs if not (a.out / j[1] / f'{j[0]}.safetensors').exists()]
    for n, how in jobs: print(f'{n}, {how}: ' + (f'about {a.steps * hours(n, how):.1f} hours on one core' if (n, how) in missing else 'is there'))
    print(f'together about {a.steps * sum(hours(*j) for j in missing):.1f} hours; stop it when you like, the same command goes on')
    if a.list: return
    makings = lru_cache(partial(Makings, number=a.scenes, work=a.work))
    for n, how in missing: make(n, how, makings(TRUNKS[n].style, teacher=a.teacher or shipped_trunk(TRUNKS[n].teacher)), a.out, a.steps, a.moments)


if __name__ == '__main__': main()
