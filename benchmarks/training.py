"""Speed of training and inference on a CPU, everything side by side in one run. Prints a markdown report:

    python benchmarks/training.py > benchmarks/training.md        # --size 256 --repeats 2 for a quick look
"""
import argparse, os, platform, statistics, time
from datetime import date
import torch, torchvision
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign
from ops import cpu_name
from person_search_nb.datasets import open_dataset
from person_search_nb.backbones import resnet_backbone
from person_search_nb.loading import make_loader
from person_search_nb.distillation import HDL
from person_search_nb.models import build_model

IDS, PROPOSALS, ROIS = 1000, 100, 32


class Box(nn.Module):
    "conv5 and pooling: torchvision's place for a box head."
    def __init__(self, block): super().__init__(); self.block = block
    def forward(self, x): return self.block(x).mean((2, 3))


class Predict(nn.Module):
    "Score, box and a 256-d embedding, from one vector."
    def __init__(self, channels): super().__init__(); self.score, self.deltas, self.embed = nn.Linear(channels, 2), nn.Linear(channels, 8), nn.Linear(channels, 256)
    def forward(self, x): self.embedding = self.embed(x); return self.score(x), self.deltas(x)


def torchvision_net(size):
    "torchvision's Faster R-CNN around the same ResNet-50: conv1 to conv4 as trunk, conv5 as head, nine anchors, RoIAlign of 14 x 14 cells."
    b = resnet_backbone(50)
    trunk = nn.Sequential(b.stem, *b.blocks[:3])
    trunk.out_channels = b.channels[2]
    return FasterRCNN(trunk, rpn_anchor_generator=AnchorGenerator(((128, 256, 512),), ((.5, 1., 2.),)), box_roi_pool=MultiScaleRoIAlign(['0'], 14, 2), box_head=Box(b.blocks[3]),
                      box_predictor=Predict(b.channels[3]), min_size=size, max_size=size, rpn_pre_nms_top_n_train=8 * PROPOSALS, rpn_pre_nms_top_n_test=8 * PROPOSALS,
                      rpn_post_nms_top_n_train=PROPOSALS, rpn_post_nms_top_n_test=PROPOSALS, box_batch_size_per_image=ROIS, box_detections_per_img=30).to(memory_format=torch.channels_last)


def net(name, **kw):
    torch.manual_seed(0)
    return build_model(name, IDS, proposals=(PROPOSALS, PROPOSALS), **kw).to(memory_format=torch.channels_last)


def scene(size, people=6):
    g = torch.Generator().manual_seed(0)
    x, y, h = torch.rand(people, generator=g) * size * .7, torch.rand(people, generator=g) * size * .5, torch.rand(people, generator=g) * size * .3 + size * .15
    boxes = torch.stack([x, y, x + .41 * h, y + h], 1)
    return torch.rand(3, size, size, generator=g), dict(boxes=boxes, person_id=torch.arange(people), labels=torch.ones(people, dtype=torch.int64), image_id=0)


def turns(ways, repeats):
    "Seconds of each way, in turns: (shortest, median)."
    times = [[] for _ in ways]
    for way in ways: way()
    for _ in range(repeats):
        for t, way in zip(times, ways): s = time.perf_counter(); way(); t.append(time.perf_counter() - s)
    return [(min(t), statistics.median(t)) for t in times]


def step(model, images, targets, bf16=False):
    opt = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-5, 0.9, fused=True)
    def run():
        model.train()
        opt.zero_grad(set_to_none=True)
        with torch.autocast('cpu', torch.bfloat16, enabled=bf16): losses = model(images, targets)
        sum(losses.values()).backward()
        opt.step()
    return run


def infer(model, images, bf16=False):
    def run():
        model.eval()
        with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16, enabled=bf16): model(images)
    return run


def scene_part(model, images, bf16=False, compiled=False):
    model.eval()
    x = model.batch(images)[0]
    f = torch.compile(model.trunk) if compiled else model.trunk
    def run():
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=bf16): f(x)
    return run


def table(*heads): print('\n| ' + ' | '.join(heads) + ' |\n|' + '---|' * len(heads), flush=True)
def row(*cells): print('| ' + ' | '.join(map(str, cells)) + ' |', flush=True)
def ratio(a, b): return f'{a[0] / b[0]:.2f}x ({a[1] / b[1]:.2f}x)'


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--size', type=int, default=800); p.add_argument('--repeats', type=int, default=5); p.add_argument('--compile', action='store_true')
    a = p.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    image, target = scene(a.size)
    one, two = ([image], [target]), ([image] * 2, [target] * 2)
    print(f"""# Training and inference on a CPU

`python benchmarks/training.py > benchmarks/training.md` · {date.today()} · {platform.system()} {platform.machine()}, {cpu_name()}, {os.cpu_count()} cores, 2 threads · Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}

Scenes of {a.size} x {a.size} px with six people, {PROPOSALS} proposals. In turns, {a.repeats} times each: ratios of the shortest times (and of the medians). Load of the machine at the start: {os.getloadavg()[0]:.1f}. Memory allocator as the Makefile sets it: {'yes' if 'MALLOC_MMAP_THRESHOLD_' in os.environ else 'no'}.""")

    print(f"\n## The OIM network against torchvision's Faster R-CNN\n\nThe same ResNet-50 in two frameworks: conv1 to conv4, RPN with nine anchors, RoIAlign of 14 x 14 cells, conv5, {ROIS} regions a scene in training. Both embed every region in 256 numbers; ours also has the OIM loss and, in search, a second pass of the head over the refined boxes (a query's embedding comes from its true box).")
    ours, theirs = net('oim', rois_per_image=ROIS - 6), torchvision_net(a.size)
    table('', 'torchvision / ours')
    for name, ways in (('training step, one scene', (step(theirs, *one), step(ours, *one))), ('training step, two scenes', (step(theirs, *two), step(ours, *two))), ('inference, one scene', (infer(theirs, one[0]), infer(ours, one[0])))):
        t, o = turns(ways, a.repeats)
        row(name, f'**{ratio(t, o)}**')

    print('\n## Teacher and students')
    teacher, paper, fast = net('hdl-teacher'), net('hdl-student'), net('hdl-student-fast')
    table('', 'teacher / paper\'s student', 'teacher / fast student', 'paper\'s / fast student')
    for name, ways in (('inference, whole, one scene', [infer(m, one[0]) for m in (teacher, paper, fast)]), ('inference, scene part', [scene_part(m, one[0]) for m in (teacher, paper, fast)]),
                       ('training step, two scenes', [step(m, *two) for m in (teacher, paper, fast)])):
        t, s, f = turns(ways, a.repeats)
        row(name, ratio(t, s), f'**{ratio(t, f)}**', ratio(s, f))
    pair = HDL(net('hdl-teacher'), net('hdl-student-fast'))
    alone, taught = turns([step(fast, *two), step(pair, *two)], a.repeats)
    print(f'\nA step of the fast student with its teacher beside it takes {ratio(taught, alone)} of one without.')

    print('\n## Number formats and compilation\n\nScene part (trunk with attention), one scene.')
    kinds = [('float32', {}), ('bfloat16', dict(bf16=True))] + ([('float32 compiled', dict(compiled=True))] if a.compile else [])
    table('', *(f'float32 / {k}' for k, _ in kinds[1:]))
    for name, m in (('teacher', teacher), ("paper's student", paper), ('fast student', fast)):
        base, *others = turns([scene_part(m, one[0], **kw) for _, kw in kinds], a.repeats)
        row(name, *(ratio(base, o) for o in others))

    print("\n## Where a training step's time goes")
    for name, m in (('teacher', teacher), ('fast student', fast)):
        run = step(m, *two); run()
        with profile(activities=[ProfilerActivity.CPU]) as prof: run()
        events = sorted(prof.key_averages(), key=lambda e: -e.self_cpu_time_total)
        total = sum(e.self_cpu_time_total for e in events)
        print(f'\n{name}: ' + ', '.join(f"{e.key.removeprefix('aten::')} {100 * e.self_cpu_time_total / total:.0f}%" for e in events[:9]))

    print('\n## The loader\n\nWritten pictures are in `benchmarks/loading.md`; here synthetic scenes, drawn as they are needed, and cached.')
    data = open_dataset('synth:tiny?train_scenes=64', 'train', progress=False)
    def rate(data, workers):
        loader = make_loader(data, 4, workers=workers)
        list(loader)
        s = time.perf_counter(); n = sum(len(i) for i, _ in loader)
        return n / (time.perf_counter() - s)
    drawn, ahead, kept = rate(data, 0), rate(data, 2), rate(open_dataset('synth:tiny?train_scenes=64', 'train', cache=True, progress=False), 0)
    print(f'\nTwo workers draw {ahead / drawn:.1f} times as many scenes a second as the training process itself; from the cache it is {kept / drawn:.0f} times as many.')


if __name__ == '__main__': main()
