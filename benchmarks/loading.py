"""What a scene costs before the network sees it, and scenes per second of the loader. Prints a markdown table:

    python benchmarks/loading.py > benchmarks/loading.md
"""
import io, os, platform, statistics, tempfile, time, warnings
from datetime import date
from pathlib import Path
import numpy as np, torch, torchvision
from PIL import Image
from ops import cpu_name
from torch.utils.data import DataLoader
from person_search_nb.pictures import Files, Fit, resize_picture
from person_search_nb.scenes import SceneDataset
from person_search_nb.datasets import open_dataset
from person_search_nb.augmentation import AUGMENT
from person_search_nb.loading import collate, make_loader, padded_share, SceneBatches, SceneSampler
from person_search_nb.models import build_model

SCENES, REPEATS, SIZES = 12, 7, ((600, 800), (1080, 1920))


def cost(*ways):
    "CPU milliseconds of each way, median of runs taken in turns: other programs on the machine do not count."
    times = [[] for _ in ways]
    for run in range(REPEATS + 1):
        for kept, way in zip(times, ways):
            start = time.process_time(); way()
            if run: kept.append(1000 * (time.process_time() - start))
    return [statistics.median(t) for t in times]


def row(*cells): print('| ' + ' | '.join(f'{c:.1f}' if isinstance(c, float) else str(c) for c in cells) + ' |', flush=True)
def table(*heads): print(); row(*heads); print('|' + '---|' * len(heads))


def written(folder, h, w):
    "Rendered scenes as JPEG files, as a data set."
    spec = f'synth:tiny?train_scenes={SCENES}&test_scenes=4&queries=2&gallery=3&train_ids=20&test_ids=6&size={h}x{w}'
    data = open_dataset(spec, 'train', progress=False)
    noise = np.random.default_rng(0)
    paths = [Path(folder, f'{h}_{i}.jpg') for i in range(SCENES)]
    for i, path in enumerate(paths):  # a little noise, as a camera has: without it the files are half the size and decode faster
        Image.fromarray((data.picture(i) + noise.normal(0, 3, (h, w, 3))).clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return data.scenes, Files(paths)


def decoding(read):
    data = read.paths[0].read_bytes()
    tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    def pillow(draft=None):
        with Image.open(io.BytesIO(data)) as im:
            if draft: im.draft('RGB', draft)
            return np.asarray(im)
    full = pillow()
    h, w = full.shape[:2]
    vision = lambda: torchvision.io.decode_jpeg(tensor, torchvision.io.ImageReadMode.RGB)
    assert (vision().permute(1, 2, 0).numpy() == full).all()
    half = (h // 2, w // 2)
    small = lambda: resize_picture(pillow((w // 2, h // 2)), half)
    off = np.abs(small().astype(int) - resize_picture(full, half))
    a, b, c, d = cost(pillow, vision, small, lambda: resize_picture(pillow(), half))
    row('decode: Pillow (used) / torchvision', a, b, f'{a / b:.1f}x', 'equal')
    row('decode and halve: full decode (used) / draft mode', d, c, f'{d / c:.1f}x', f'mean difference {off.mean():.2f}, up to {off.max()} of 255')
    return full


def scaling(full):
    h, w = full.shape[:2]
    for name, size in (('two thirds', (h * 2 // 3, w * 2 // 3)), ('one third', (h // 3, w // 3)), ('one and a half', (h * 3 // 2, w * 3 // 2))):
        ours, pillow = lambda: resize_picture(full, size), lambda: np.asarray(Image.fromarray(full).resize(size[::-1], Image.BILINEAR))
        off = np.abs(ours().astype(int) - pillow())
        a, b = cost(ours, pillow)
        row(f'scale to {name}: PyTorch (used) / Pillow', a, b, f'{a / b:.2f}x', f'{(off > 0).mean():.2%} of the bytes differ, by {off.max()}')


def floats(full):
    x = torch.from_numpy(np.array(full)).permute(2, 0, 1)
    ours, plain = lambda: torch.empty(x.shape).copy_(x).div_(255), lambda: x.contiguous().float().div_(255)
    assert torch.equal(ours(), plain())
    a, b = cost(ours, plain)
    row('bytes to floats: one copy (used) / contiguous, float', a, b, f'{a / b:.2f}x', 'equal')


def ticks(pid):
    "CPU seconds a process has used, by Linux' own count."
    user, system = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')


def rate(loader, workers, epochs=3):
    "Scenes per second by the clock, and CPU milliseconds per scene in the main process and in the workers, over some epochs after a first one."
    def epoch():
        for images, targets in loader: pass
    epoch()
    pids = [w.pid for w in loader._iterator._workers] if workers else []
    count = lambda: (time.perf_counter(), time.process_time(), sum(map(ticks, pids)))
    start = count()
    for _ in range(epochs): epoch()
    clock, main, ahead = (b - a for a, b in zip(start, count()))
    n = epochs * SCENES
    return n / clock, 1000 * main / n, 1000 * ahead / n


def main():
    warnings.filterwarnings('ignore', category=DeprecationWarning)
    torch.set_num_threads(1)
    print('# Loading scenes\n')
    print(f'`python benchmarks/loading.py > benchmarks/loading.md` · {date.today()} · {platform.system()} {platform.machine()}, {cpu_name()}, {os.cpu_count()} cores, '
          f'1 thread per process · Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {Image.__version__}\n')
    print(f'Load of the machine at the start: {os.getloadavg()[0]:.1f}. Costs are CPU milliseconds (median of {REPEATS}, in turns), which a busy machine lengthens but little; scenes per second by the clock are what was left of the cores, and the last column is what the CPU times allow on free cores.')
    print('torchvision decodes the same pixels in 0.7 of the time, but announces with every call that its decoders will be removed, so Pillow stays. JPEG draft mode, which decodes at half size, is not the same picture.')
    print('Workers hand over bytes: with floats the copying into shared memory costs a worker more than the decoding. A cached set needs no workers: handing a picture over costs more than looking it up. Augmenting costs several times the decoding: give it workers, or a smaller `size`.')
    with tempfile.TemporaryDirectory() as folder:
        sets = {size: written(folder, *size) for size in SIZES}
        for (h, w), (scenes, read) in sets.items():
            kb = sum(p.stat().st_size for p in read.paths) / SCENES / 1024
            print(f'\n## {w} x {h} px, JPEG files of {kb:.0f} KB')
            table('step, two ways', 'first (ms)', 'second (ms)', 'first / second', 'pixels')
            full = decoding(read); scaling(full); floats(full)
            data = SceneDataset(scenes, read)
            image, target = data[0]
            table('one scene', 'ms')
            whole, fit = cost(lambda: data[0], lambda: SceneDataset(scenes, read, size=(h * 2 // 3, w * 2 // 3))[0])
            row('decoded, as floats', whole); row('the same, scaled to two thirds', fit)
            chain = AUGMENT['attention-embedding']
            for step in chain.steps: row(f'+ {type(step).__name__}', *cost(lambda: step(image, target, torch.Generator().manual_seed(1))))
            cached = SceneDataset(scenes, read, cache=True, workers=0, progress=False)
            table('loader, batches of 4', 'workers', 'scenes/s by the clock', 'main process, ms per scene', 'workers, ms per scene', 'scenes/s these allow')
            ours = lambda d, **kw: lambda n: make_loader(d, 4, workers=n, **kw)
            floats_travel = lambda n: DataLoader(data, 4, num_workers=n, collate_fn=collate, persistent_workers=True)
            for name, make, counts in (('from files', ours(data), (0, 1, 2)), ('from files, floats travel', floats_travel, (1, 2)), ('cached in memory', ours(cached), (0, 1, 2)),
                                       ('from files, augmented', ours(data, augment='attention-embedding', shuffle=True), (0, 1, 2))):
                for workers in counts:
                    clock, main, ahead = rate(make(workers), workers)
                    row(name, workers, clock, main, ahead if workers else '-', f'{1000 / max(main, ahead / max(workers, 1)):.0f}')
    padding()


def padding():
    rng = np.random.default_rng(0)
    fit = lambda sizes, rule: np.array([[max(1, round(v * rule(*s))) for v in s] for s in sizes])
    street = np.stack([np.exp(rng.normal(6.4, .25, 4000)), np.exp(rng.normal(6.6, .25, 4000))], 1)
    cameras = np.array([(1080, 1920), (576, 720)])[rng.choice(2, 4000, p=[.85, .15])]
    print('\n## Batches of scenes of like shape\n\nShare of the pixels computed that are padding. Street photographs and films: 4,000 scenes of random sizes, all different, fitted to 800 x 800; two cameras: 1920 x 1080 and, one in seven, 720 x 576, as they come.')
    table('scenes', 'batch', 'as they come', 'pools of 16 batches (`group=True`)', 'pixels computed')
    batches = lambda n, size, sizes: [[i for i, *_ in b] for b in SceneBatches(SceneSampler(n), size, sizes=sizes)]
    for name, sizes in (('street and film', fit(street, Fit(800, 800))), ('two cameras', cameras)):
        for size in (4, 8):
            a, b = (padded_share(sizes, batches(4000, size, s)) for s in (None, sizes))
            row(name, size, f'{a:.1%}', f'{b:.1%}', f'{(1 - a) / (1 - b):.2f} times')
    net, sizes = build_model('hdl-student', 2, width=.25).eval(), fit(street[:64], Fit(320, 320))
    images = [torch.rand(3, *s) for s in sizes.tolist()]
    def epoch(group):
        with torch.no_grad():
            for b in group: net.trunk(net.batch([images[i] for i in b])[0])
    plain, grouped = (batches(64, 4, s) for s in (None, sizes))
    a, b = cost(lambda: epoch(plain), lambda: epoch(grouped))
    print(f'\nMeasured: the trunk of a quarter-width HDL student over 64 street scenes fitted to 320 x 320, in fours: {a:.0f} ms of CPU as they come, {b:.0f} ms in batches of like shape, '
          f'{b / a:.2f} times (by pixels {(1 - padded_share(sizes, plain)) / (1 - padded_share(sizes, grouped)):.2f}).')


if __name__ == '__main__': main()
