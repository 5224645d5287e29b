"""Draw the README's picture: teacher and distilled student look at one scene, and find the person who was asked for.

    python .ci/hero.py                     # writes nbs/assets/hero.gif, a minute or two on one core

Nothing is trained: both networks are the small ones that come with the package, the scenes are painted from a seed, so the same
versions of the libraries give the same bytes. A scene is chosen by rule, not by hand: among the queries whose person both networks
rank first within a scene, the one with the widest lead of the weaker network. It is a clear case, then, not a typical one;
benchmarks/demo.md has the numbers. Colours stand for likeness to the query and are also printed; right is ticked, not only green.
"""
import argparse
import io
from pathlib import Path

import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Rectangle
from PIL import Image

from person_search_nb.files import atomic_write
from person_search_nb.boxes import box_iou
from person_search_nb.datasets import open_dataset
from person_search_nb.model_files import shipped_trunk
from person_search_nb.models import load_model
from person_search_nb.visualize import crop, RIGHT, STYLE
from person_search_nb.attention_maps import attention_maps, overlay, unit_range

SPEC = 'synth:tiny?test_scenes=24&test_ids=12&queries=12&gallery=20&seed=11'
NETS = {'teacher': 'hdl-teacher', 'student': 'hdl-student-fast-taught'}
SIZE, DPI = (8., 3.62), 100 # inches; 800 px wide
LEVELS = 3


@torch.no_grad()
def people(net, image):
    "Boxes and embeddings of the people found in a scene."
    found = net([image])[0]
    sure = found['scores'] > .5
    return found['boxes'][sure], found['embeddings'][sure]


def choose(nets, gallery, queries):
    "(query, scene) with the widest lead of the right person, and every network's view of it."
    best, seen = None, {}
    for q in range(len(queries)):
        image, box, who = queries[q]
        if box[0, 3] - box[0, 1] < 90: continue # a query one can see
        with torch.no_grad(): asked = {n: net.embed([image], [box[:1]])[0] for n, net in nets.items()}
        for s in range(len(gallery)):
            t = gallery.truth(s)
            truth, ids = torch.as_tensor(t['boxes']), torch.as_tensor(t['person_id'])
            me = truth[ids == int(who)]
            if s == int(queries.gallery_index[q]) or not len(me) or me[0, 3] - me[0, 1] < 60 or len(truth) < 4: continue
            lead, view = [], {}
            for n, net in nets.items():
                if (n, s) not in seen: seen[n, s] = people(net, gallery.image(s))
                boxes, like = seen[n, s][0], seen[n, s][1] @ asked[n]
                right = box_iou(boxes, me[:1])[:, 0] > .5
                if len(boxes) < 4 or not right.any() or not right[like.argmax()]: break
                lead.append(float(like[right].max() - like[~right].max()))
                view[n] = boxes, like
            if len(view) == len(nets) and (best is None or min(lead) > best[0]): best = min(lead), q, s, view
    if best is None: raise SystemExit('no query is found by both networks; take another seed')
    return best[1:]


def frame(image, card, maps, views, names, level=None, strength=0., found=0., marked=0., words=''):
    "One picture of the animation."
    with plt.style.context(STYLE):
        fig = plt.figure(figsize=SIZE, dpi=DPI, layout='none')
        fig.patch.set_facecolor('white')
        w, h = SIZE[0] * DPI, SIZE[1] * DPI
        place = lambda x, y, dx, dy: fig.add_axes((x / w, 1 - (y + dy) / h, dx / w, dy / h))
        wide = 392; tall = round(wide * image.shape[1] / image.shape[2])
        for k, (name, label) in enumerate(names.items()):
            ax = place(4 + k * (wide + 8), 28, wide, tall)
            picture = image.permute(1, 2, 0).numpy()
            if level is None: ax.imshow(picture, interpolation='bilinear')
            else:
                a, b = int(level), min(int(level) + 1, LEVELS - 1)
                overlay(ax, image, maps[name][a], 4 * 2 ** a, alpha=.72 * (1 - (level - a)) if b > a else .72)
                if level > a: overlay_more(ax, maps[name][b], 4 * 2 ** b, .72 * (level - a))
                ax.imshow(picture, interpolation='bilinear', alpha=1 - strength, zorder=3)
            boxes, like = views[name]
            top = int(like.argmax())
            if found:
                tags = []
                for i, (b, c) in enumerate(zip(boxes.tolist(), like.tolist())):
                    low = any(abs(b[0] - x) < 26 and abs(b[1] - y) < 14 for x, y in tags) # its tag would cover another
                    tags.append((b[0], b[3] if low else b[1]))
                    is_it = marked and i == top
                    colour = RIGHT if is_it else '#ffffff'
                    ax.add_patch(Rectangle(b[:2], b[2] - b[0], b[3] - b[1], fill=False, ec=colour, lw=3 if is_it else 1.2, alpha=found if is_it or not marked else .75, zorder=5))
                    ax.text(b[0], b[3] + 13 if low else b[1] - 3, f'✓ {c:.2f}' if is_it else f'{c:.2f}', fontsize=9.5 if is_it else 7.5, color='white' if is_it else 'black', weight='bold' if is_it else 'normal', va='bottom', zorder=6, clip_on=True,
                            alpha=found if is_it or not marked else .75, bbox=dict(fc=colour, ec='none', pad=1.2, alpha=found if is_it or not marked else .6))
            ax.set(xlim=(-.5, image.shape[2] - .5), ylim=(image.shape[1] - .5, -.5)); ax.set_axis_off()
            fig.text((4 + k * (wide + 8)) / w, 1 - 18 / h, label, fontsize=11, va='center', weight='bold', color='#222222')
        y = 28 + tall + 8
        ax = place(4, y, (h - y - 6) * card.shape[1] / card.shape[0], h - y - 6)
        ax.imshow(card, interpolation='bilinear'); ax.set(xticks=[], yticks=[])
        for s in ax.spines.values(): s.set(visible=True, color='#0072b2', linewidth=2.5)
        x = 4 + (h - y - 6) * card.shape[1] / card.shape[0] + 14
        fig.text(x / w, 1 - (y + 20) / h, 'Find this person', fontsize=14, va='center', weight='bold', color='#0072b2')
        fig.text(x / w, 1 - (y + 52) / h, words, fontsize=12.5, va='center', color='#222222')
        if level is not None:
            bar = place(w - 214, y + 44, 200, 10)
            bar.imshow(np.linspace(0, 1, 256)[None], cmap='inferno', aspect='auto'); bar.set_axis_off()
            fig.text((w - 214) / w, 1 - (y + 30) / h, 'energy of the features, |X|²', fontsize=10, va='center', color='#222222')
            for at, word, side in ((w - 214, 'little', 'left'), (w - 14, 'much', 'right')): fig.text(at / w, 1 - (y + 68) / h, word, fontsize=9, va='center', ha=side, color='#555555')
        fig.canvas.draw()
        out = Image.fromarray(np.asarray(fig.canvas.buffer_rgba())[..., :3].copy())
        plt.close(fig)
    return out


def overlay_more(ax, heat, stride, alpha):
    h, w = heat.shape
    ax.imshow(np.pad(heat, 1, mode='edge'), cmap='inferno', vmin=0, vmax=1, alpha=alpha, interpolation='bilinear', extent=(-1.5 * stride, (w + .5) * stride, (h + .5) * stride, -1.5 * stride), zorder=2)


def animation():
    "List of (frame settings, milliseconds)."
    out = [(dict(words='in a scene that nobody has marked'), 1500)]
    for s in (.35, .7): out.append((dict(level=0., strength=s, words='where do they look?'), 90))
    for j in range(LEVELS):
        out.append((dict(level=float(j), strength=1., words=f'where do they look?  level {j}, cells of {4 * 2 ** j} px'), 1100))
        if j < LEVELS - 1: out += [(dict(level=j + f, strength=1., words=f'where do they look?  level {j}, cells of {4 * 2 ** j} px'), 90) for f in (.35, .7)]
    for s in (.6, .25): out.append((dict(level=float(LEVELS - 1), strength=s, words='everybody found, and how like the query'), 90))
    out.append((dict(found=1., words='everybody found, and how like the query'), 1800))
    out.append((dict(found=1., marked=1., words='the most alike: the right one, for both'), 2600))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', default='nbs/assets/hero.gif')
    parser.add_argument('--colours', type=int, default=256, help='of each palette, 256 at most; fewer make a smaller file')
    parser.add_argument('--frames', default='', help='a folder for the frames as PNG, to look at')
    args = parser.parse_args()
    torch.manual_seed(0)
    gallery, queries = (open_dataset(SPEC, s, cache=True, progress=False) for s in ('gallery', 'query'))
    nets = {n: load_model(shipped_trunk(f)).eval() for n, f in NETS.items()}
    q, s, views = choose(nets, gallery, queries)
    query, box, _ = queries[q]
    image, card = gallery.image(s), crop(query, box[0], 4)
    maps = {n: [unit_range(np.minimum(m, np.quantile(m, .995))) for m in attention_maps(net, image, what='energy', normalise=False)[:LEVELS]] for n, net in nets.items()}
    count = {n: sum(p.numel() for p in net.parameters()) for n, net in nets.items()}
    names = {'teacher': f"teacher, {count['teacher'] / 1e6:.1f} M parameters", 'student': f"student it taught, {count['student'] / 1e6:.1f} M parameters"}
    steps = animation()
    shots = [(frame(image, card, maps, views, names, **kw), ms) for kw, ms in steps]
    def palette(pictures): # one for all pictures of a kind, so that nothing flickers
        board = Image.new('RGB', (pictures[0].width, pictures[0].height * len(pictures)))
        for k, p in enumerate(pictures): board.paste(p, (0, k * p.height))
        return board.quantize(args.colours, method=Image.Quantize.MEDIANCUT, kmeans=1)
    hot = [kw.get('level') is not None for kw, _ in steps]
    kinds = {v: palette([p for (p, _), h in zip(shots, hot) if h == v]) for v in (False, True)}
    small = [p.quantize(palette=kinds[h], dither=Image.Dither.NONE) for (p, _), h in zip(shots, hot)]
    if args.frames:
        Path(args.frames).mkdir(parents=True, exist_ok=True)
        for k, p in enumerate(small): p.convert('RGB').save(Path(args.frames) / f'{k:02d}.png')
    file = io.BytesIO()
    small[0].save(file, 'GIF', save_all=True, append_images=small[1:], duration=[ms for _, ms in shots], loop=0, optimize=True)
    atomic_write(args.out, file.getvalue())
    print(f'query {q} in scene {gallery.names[s]}: {len(shots)} frames, {len(file.getvalue()) / 1024:.0f} KB')
    for n, (_, like) in views.items(): print(f'{n}: likeness {[round(v, 2) for v in sorted(like.tolist(), reverse=True)]}')


if __name__ == '__main__': main()
