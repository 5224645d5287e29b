"""What a deployed student gains and what it costs, on the CPU. Two tables, as markdown:

    python benchmarks/deploy.py time --found 8 30 > time.txt    # latency per scene at 800x800, full width, random weights
    python benchmarks/deploy.py accuracy > accuracy.txt         # mAP of the shipped networks in fp32, as ONNX and in int8
    python benchmarks/deploy.py accuracy --networks teacher=runs/small/teacher/model.safetensors student=runs/small/student/model.safetensors --data synth:small    # of your own

For `time`, set MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000 in the environment, for PyTorch's sake.
"""
import argparse, os, platform, statistics, sys, tempfile, time
from datetime import date
from pathlib import Path

import torch

from person_search_nb.datasets import open_dataset
from person_search_nb.model_files import shipped_trunk
from person_search_nb.evaluation import evaluate
from person_search_nb.models import build_model, load_model
from person_search_nb.deployable import deployable
from person_search_nb.deploy import export_onnx
from person_search_nb.deployed import Deployed, quantise

SIZE, THREADS, PROPOSALS = (800, 800), 2, 50


class Noise:
    "Scenes of noise, to calibrate random weights with."
    def __len__(self): return 2
    def __getitem__(self, i): return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(i)), None


def log(*words): print(time.strftime('%H:%M:%S'), *words, file=sys.stderr, flush=True)


def full_width(name):
    "Random weights, every proposal a person: the caller says how many of them are kept."
    torch.manual_seed(0)
    return build_model(name, 5532, proposals=(100, PROPOSALS), score_threshold=0., nms_threshold=0.99).eval()


class Clock:
    "Seconds that went into named functions."
    def __init__(self): self.spent = {}
    def watch(self, name, f):
        def run(*args, **kw):
            start = time.perf_counter()
            out = f(*args, **kw)
            self.spent[name] = self.spent.get(name, 0) + time.perf_counter() - start
            return out
        return run


def watch(net, clock):
    "Time the scene pass and the regions (pooling and head) of a model or of two parts; the rest is proposals and NMS."
    if hasattr(net, 'parts'):
        net.parts['scene'], net.regions = clock.watch('scene', net.parts['scene']), clock.watch('regions', net.regions)
    else:
        net.batch, net.trunk, net.rpn.predict, net.head = (clock.watch(k, f) for k, f in (('scene', net.batch), ('scene', net.trunk), ('scene', net.rpn.predict), ('regions', net.head)))
    return net


def keep(net, found):
    "So many regions go through the head a second time."
    if hasattr(net, 'parts'): net.about['detections'] = found
    else: net.detections = found


def compiled(net, bf16):
    "The two parts, compiled with frozen weights."
    import torch._inductor.config as inductor
    inductor.freezing = True
    parts = deployable(net)
    for m in parts.parts.values(): m.to(memory_format=torch.channels_last)
    def ready(f, dynamic):
        f = torch.compile(f, dynamic=dynamic)
        def run(*args):
            with torch.autocast('cpu', torch.bfloat16, enabled=bf16): out = f(*args)
            return tuple(o.float() for o in out)
        return run
    scene = ready(parts.parts['scene'], False)
    parts.parts = dict(scene=lambda x: scene(x.contiguous(memory_format=torch.channels_last)), head=ready(parts.parts['head'], True))
    return parts


def forms(name, folder, compile_fp32):
    "name -> a callable detector, for each form of a model."
    net = full_width(name)
    log(name, 'to ONNX')
    export_onnx(net, folder/f'{name}.onnx')
    quantise(folder/f'{name}.onnx', folder/f'{name}-int8.onnx', Noise(), 2, progress=False)
    out = {'PyTorch, eager': net, 'PyTorch, compiled': compiled(net, False) if compile_fp32 else None, 'PyTorch, compiled, bf16': compiled(net, True),
           'onnxruntime, fp32': Deployed(folder/f'{name}.onnx', THREADS), 'onnxruntime, int8': Deployed(folder/f'{name}-int8.onnx', THREADS)}
    return {f'{name}: {k}': v for k, v in out.items() if v is not None}


def time_table(founds, repeats):
    torch.set_num_threads(THREADS)
    image = [torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(5))]
    with tempfile.TemporaryDirectory() as d, torch.no_grad():
        nets = forms('hdl-teacher', Path(d), False) | forms('hdl-student-fast', Path(d), True)
        clocks = {k: Clock() for k in nets}
        for k, n in nets.items():
            log('warming up', k)
            watch(n, clocks[k])
            for found in founds: keep(n, found); n(image); n(image)
        for found in founds:
            rows = {k: [] for k in nets}
            for r in range(repeats):
                log('round', r, 'of', repeats, 'with', found)
                for k, n in nets.items():  # in turns, so that a busy moment of the machine meets all
                    keep(n, found)
                    clocks[k].spent = {}
                    start = time.perf_counter(); got = n(image); total = time.perf_counter() - start
                    assert len(got[0]['boxes']) == found, (k, len(got[0]['boxes']))
                    rows[k].append((total, clocks[k].spent['scene'], clocks[k].spent['regions']))
            best = {k: min(v) for k, v in rows.items()}
            middle = {k: statistics.median(t for t, *_ in v) for k, v in rows.items()}
            teacher = next(iter(nets)); strongest = min((k for k in nets if k.startswith('hdl-teacher')), key=lambda k: best[k][0])
            print(f'\n{PROPOSALS} proposals, {found} people found (regions through the head: {PROPOSALS + found}); fastest of {repeats} rounds. The teacher\'s best form here: {strongest.split(": ")[1]}.\n')
            print("| network, form | share of the teacher's eager time | x faster than teacher, eager | by medians | x faster than teacher, best form | scene pass | proposals, NMS | regions: pooling, head |\n|---|---|---|---|---|---|---|---|")
            for k, (t, scene, regions) in best.items():
                part = lambda x: f'{x / best[teacher][0]:.3f}'
                print(f'| {k} | {part(t)} | **{best[teacher][0] / t:.1f}** | {middle[teacher] / middle[k]:.1f} | {best[strongest][0] / t:.1f} | {part(scene)} | {part(t - scene - regions)} | {part(regions)} |', flush=True)
    print(f'\n{date.today()}, {platform.machine()}, {os.cpu_count()} cores, {THREADS} threads, load {os.getloadavg()[0]:.1f}; torch {torch.__version__}.')


def accuracy_table(networks, specs, calibration, scenes):
    import onnxruntime
    print(f'Calibrated on {scenes} training scenes of `{calibration}`. onnxruntime {onnxruntime.__version__}.\n')
    print('| data | network | form | mAP | top-1 | detection AP |\n|---|---|---|---|---|---|')
    train = open_dataset(calibration, 'train')
    with tempfile.TemporaryDirectory() as d:
        d, nets = Path(d), {}
        for name, file in (n.split('=', 1) if '=' in n else (n, shipped_trunk(n)) for n in networks):
            net = load_model(file)
            log(name, 'to ONNX')
            export_onnx(net, d/f'{name}.onnx')
            quantise(d/f'{name}.onnx', d/f'{name}-int8.onnx', train, scenes, progress=False)
            nets |= {(name, 'PyTorch fp32'): net, (name, 'ONNX fp32'): Deployed(d/f'{name}.onnx'), (name, 'ONNX int8'): Deployed(d/f'{name}-int8.onnx')}
        for spec in specs:
            gallery, queries = open_dataset(spec, 'gallery', cache=True), open_dataset(spec, 'query')
            for (name, form), net in nets.items():
                log(spec, name, form)
                r = evaluate(net, gallery, queries, progress=False)
                print(f"| `{spec}` | {name} | {form} | {r['mAP']:.4f} | {r['top1']:.4f} | {r['det_ap']:.4f} |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('table', choices=['time', 'accuracy'])
    p.add_argument('--found', type=int, nargs='+', default=[8, 30], help='people found in a scene')
    p.add_argument('--repeats', type=int, default=10)
    p.add_argument('--networks', nargs='+', default=['hdl-teacher', 'hdl-student-fast-taught'], help='shipped ones, or NAME=MODEL.safetensors')
    p.add_argument('--data', nargs='+', default=['synth:tiny?test_scenes=80&test_ids=50&queries=50&gallery=60', 'synth:small?test_scenes=40&test_ids=25&queries=25&gallery=30'])
    p.add_argument('--calibration', default='synth:tiny?train_scenes=64&train_ids=50')
    p.add_argument('--scenes', type=int, default=32)
    a = p.parse_args()
    if a.table == 'time': time_table(a.found, a.repeats)
    else: accuracy_table(a.networks, a.data, a.calibration, a.scenes)


if __name__ == '__main__': main()
