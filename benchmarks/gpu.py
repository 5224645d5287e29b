"""One GPU, under ten minutes: how fast the full-size teacher trains, and what teacher, plain and distilled student learn in that time.

    benchmarks/gpu.sh OUT                          # makes the environment's missing parts, then runs this
    python benchmarks/gpu.py OUT --minutes 8       # --toy: the same path in miniature, on a CPU
"""
import argparse, json, os, platform, time
from datetime import date
from pathlib import Path
import torch
from person_search_nb.streets import synth_config
from person_search_nb.synthetic import write_dataset
from person_search_nb.datasets import open_dataset
from person_search_nb.costs import count_macs
from person_search_nb.presets import make_recipe
from person_search_nb.recipes import run_recipe

SHARES = dict(teacher=0.42, plain=0.18, hdl=0.40)  # of the minutes


def peak(device, n):
    "Achieved FLOP/s of a large bfloat16 matrix product, the card's measured limit."
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3): a @ b
    wait(device); start = time.perf_counter()
    for _ in range(20): a @ b
    wait(device)
    return 20 * 2 * n ** 3 / (time.perf_counter() - start)


def wait(device):
    if device.type == 'cuda': torch.cuda.synchronize()


def main():
    p = argparse.ArgumentParser()
    p.add_argument('out', type=Path); p.add_argument('--minutes', type=float, default=8.); p.add_argument('--toy', action='store_true'); p.add_argument('--workers', type=int, default=os.cpu_count() or 1)
    a = p.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    device, began = torch.device('cuda' if torch.cuda.is_available() else 'cpu'), time.perf_counter()
    spec = ('synth:full?train_scenes=1600&test_scenes=500&train_ids=800&test_ids=250&queries=200&gallery=100' if not a.toy else
            'synth:tiny?train_scenes=16&test_scenes=8&train_ids=10&test_ids=5&queries=4&gallery=5&size=96x160')
    folder = a.out / 'scenes'
    name, _, options = spec.removeprefix('synth:').partition('?')
    write_dataset(synth_config(name, dict(o.split('=') for o in options.split('&'))), folder, 'cuhk-sysu', a.workers)   # drawn once, so that the GPU does not wait for the pen
    drawn = time.perf_counter() - began
    limit = peak(device, 8192 if device.type == 'cuda' else 512)
    data, batch = f'cuhk-sysu:{folder}', 16 if not a.toy else 4
    scenes = len(open_dataset(data, 'train', progress=False))
    common = dict(size=(800, 800) if not a.toy else (96, 160), batch_size=batch, workers=min(a.workers, 14) if not a.toy else 0, checkpoint_every=10 ** 6, start='', norm='local', compile=not a.toy) | (
        dict(width=0.125, warmup=1, precision='fp32') if a.toy else dict(warmup=100, rois_per_image=16, proposals=(100, 100), factored=True))

    def timed(name, model, **more):
        "Train for this part of the time: a few steps tell the speed, the rest follows from it."
        budget = 60 * a.minutes * SHARES[name]
        probe = make_recipe(model, data, 'fast', **common | dict(epochs=12 * batch / scenes, evaluate_every=0.) | more)
        begun = time.perf_counter()
        _, history = run_recipe(probe, a.out / f'{name}-probe', progress=False)
        steps = [b['seconds'] - c['seconds'] for c, b in zip(history[5:], history[6:])] or [1.]
        each, overhead = sorted(steps)[len(steps) // 2], time.perf_counter() - begun - history[-1]['seconds']     # the probe's evaluation and loading
        left = budget - (time.perf_counter() - begun) - 4 * overhead
        epochs = max(12 * batch / scenes, left / each * batch / scenes)
        if device.type == 'cuda': torch.cuda.reset_peak_memory_stats()
        net, history = run_recipe(make_recipe(model, data, 'fast', **common | dict(epochs=epochs, evaluate_every=epochs / 3) | more), a.out / name, progress=False)
        memory = torch.cuda.max_memory_allocated() / 2 ** 30 if device.type == 'cuda' else float('nan')
        h = history[len(history) // 4:]
        speed = batch * (len(h) - 1) / (h[-1]['seconds'] - h[0]['seconds'])
        scores = json.loads((a.out / name / 'scores.json').read_text())
        return dict(name=name, model=model, steps=len(history), images_s=speed, memory_gib=memory, scores=[s | dict(minutes=history[s['step'] - 1]['seconds'] / 60) for s in scores], net=net)

    rows = [timed('teacher', 'hdl-teacher'), timed('plain', 'hdl-student-fast'), timed('hdl', 'hdl-student-fast', teacher=str(a.out / 'teacher/model.safetensors'))]
    for r in rows:
        m = count_macs(r.pop('net').cpu(), common['size'])
        rois = common.get('rois_per_image', 16)
        r['flop_image'] = 3 * 2 * (m['scene'] + rois * m['person'])        # forward, and twice as much backward; regions sampled for the loss
        r['of_peak'] = r['images_s'] * r['flop_image'] / limit
    lines = [f'# One GPU, {a.minutes:.0f} minutes', '', f'`benchmarks/gpu.sh OUT` · {date.today()} · {torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()}, {os.cpu_count()} cores · torch {torch.__version__}', '',
             f'{scenes} training scenes fitted into {common["size"][0]} x {common["size"][1]} px (`{spec}`, drawn in {drawn:.0f} s by {a.workers} processes), batch {batch}, preset `fast` from random weights. '
             f'Measured limit of the card: {limit / 1e12:.0f} TFLOP/s (bfloat16 matrix product).', '',
             '| | steps | images/s | FLOP/s, share of the limit | peak memory, GiB | mAP by minute | top-1 | detection AP |', '|---|---|---|---|---|---|---|---|']
    for r in rows:
        last = r['scores'][-1]
        lines.append(f"| {r['name']} ({r['model']}) | {r['steps']} | {r['images_s']:.0f} | {100 * r['of_peak']:.0f}% | {r['memory_gib']:.1f} | " + ', '.join(f"{s['mAP']:.3f} at {s['minutes']:.1f}" for s in r['scores'])
                     + f" | {last['top1']:.3f} | {last['det_ap']:.3f} |")
    text = '\n'.join(lines) + '\n'
    (a.out / 'gpu.md').write_text(text)
    (a.out / 'gpu.json').write_text(json.dumps(rows, indent=1))
    print(text)


if __name__ == '__main__': main()
