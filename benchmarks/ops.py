"""RoIAlign and NMS of this library against torchvision's C++ on the CPU. Prints a markdown table:

    python benchmarks/ops.py > benchmarks/ops.md
"""
import os, platform, statistics, time
from datetime import date
from pathlib import Path
import torch, torchvision
from person_search_nb.boxes import nms
from person_search_nb.roi_align import roi_align

THREADS, REPEATS = 2, 12


def people(n, height, width, heights, generator):
    "Upright boxes (n, 4) of the given range of heights with centres all over the image, in px."
    h = heights[0] + torch.rand(n, generator=generator) * (heights[1] - heights[0])
    half = torch.stack([h / 2.44, h], 1) / 2
    centre = torch.rand(n, 2, generator=generator) * torch.tensor([width, height])
    return torch.cat([centre - half, centre + half], 1)


def proposals(n, generator, crowd):
    "Boxes and scores like an RPN's: clouds around 60 people (crowd), or boxes all over the image."
    if not crowd: return people(n, 800, 800, (20, 170), generator), torch.rand(n, generator=generator)
    who = torch.randint(60, (n,), generator=generator)
    boxes = people(60, 800, 800, (40, 190), generator)[who]
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + 0.12 * size * torch.randn(n, 4, generator=generator), torch.rand(n, generator=generator)


def compare(ours, theirs):
    "Shortest and median time of both in ms, taken in turns, so that a busy moment of the machine meets both."
    ours(), theirs()
    times = [[], []]
    for _ in range(REPEATS):
        for kept, f in zip(times, (ours, theirs)):
            start = time.perf_counter(); f(); kept.append(1000 * (time.perf_counter() - start))
    return [(min(t), statistics.median(t)) for t in times]


def row(name, result):
    (a, a_mid), (b, b_mid) = result
    print(f"| {name} | {a:.1f} | {b:.1f} | **{b / a:.1f}x** | {b_mid / a_mid:.1f}x |", flush=True)


def bench_roi_align(label, features, rois):
    ops = roi_align, torchvision.ops.roi_align
    for layout, memory_format in (('channels first', torch.contiguous_format), ('channels last', torch.channels_last)):
        x = features.to(memory_format=memory_format).requires_grad_()
        call = lambda f: f(x, rois, 7, 1 / 16, 2, False)
        first, second = (call(f).detach() for f in ops)
        assert torch.allclose(first, second, atol=5e-5)
        with torch.no_grad(): row(f"{label}, {layout}: forward", compare(*[lambda f=f: call(f) for f in ops]))
        grads = [torch.randn(out.shape).to(memory_format=torch.channels_last if out.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format)
                 for out in (first, second)]  # in the layout of the output, as the next layer would give it

        def both(f, grad):
            x.grad = None
            call(f).backward(grad)

        row(f"{label}, {layout}: forward and backward", compare(*[lambda f=f, g=g: both(f, g) for f, g in zip(ops, grads)]))


def cpu_name():
    "Model line of the processor, where the system tells."
    info = Path('/proc/cpuinfo')
    lines = [l.split(':')[1].strip() for l in info.read_text().splitlines() if l.startswith('model name')] if info.exists() else []
    return lines[0] if lines else platform.processor() or platform.machine()


def main():
    torch.set_num_threads(THREADS)
    generator = torch.Generator().manual_seed(0)
    print("# RoIAlign and NMS on the CPU\n")
    print(f"`python benchmarks/ops.py > benchmarks/ops.md` · {date.today()} · {platform.system()} {platform.machine()}, {cpu_name()}, {os.cpu_count()} cores, "
          f"{THREADS} threads · Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}\n")
    print(f"Milliseconds, the shortest of {REPEATS} runs, ours and torchvision's C++ in turns; the last column is the ratio of the medians. Load of the machine "
          f"at the start: {os.getloadavg()[0]:.1f}.\n" if hasattr(os, 'getloadavg') else "")
    print("| case | ours (ms) | torchvision (ms) | faster | by medians |\n|---|---|---|---|---|")
    big = torch.randn(1, 1024, 50, 50, generator=generator)
    boxes = people(128, 800, 800, (60, 400), generator)
    bench_roi_align("RoIAlign, 128 RoIs on 1 x 1024 x 50 x 50", big, [boxes])
    small = torch.randn(4, 256, 12, 21, generator=generator)
    bench_roi_align("RoIAlign, 64 RoIs on 4 x 256 x 12 x 21", small, [people(16, 192, 336, (24, 150), generator) for _ in range(4)])
    for crowd in (True, False):
        for threshold in (0.7, 0.5):
            boxes, scores = proposals(6000, generator, crowd)
            kept = nms(boxes, scores, threshold)
            assert torch.equal(kept, torchvision.ops.nms(boxes, scores, threshold))
            row(f"NMS, 6,000 boxes {'around 60 people' if crowd else 'everywhere'}, IoU {threshold}: {len(kept):,} left",
                compare(*[lambda f=f: f(boxes, scores, threshold) for f in (nms, torchvision.ops.nms)]))
    print("\nRoIAlign: 7 x 7 bins, 2 x 2 samples, `aligned=False`, scale 1/16, upright boxes of 60 to 400 px (large map) and 24 to 150 px (small map). Its output is channels-last in memory; "
          "the gradient handed to each op has the layout of that op's output. Below 4,000 boxes or IoU 0.5, and on other devices than the CPU, `nms` is torchvision's.")


if __name__ == '__main__': main()
