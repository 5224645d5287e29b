"""The evaluator against the bare product of embeddings, and against the field's loop. Prints a markdown table:

    python benchmarks/evaluation.py > benchmarks/evaluation.md
"""
import os, subprocess, sys
THREADS = os.environ.get('EVALUATION_THREADS')  # the script starts itself with 1 and 2: BLAS reads it once
if THREADS: os.environ.update(dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'), THREADS))
import platform, time, tracemalloc
from datetime import date
import numpy as np, torch
from person_search_nb.ranking import match_search
from person_search_nb.retrieval_metrics import summarize

REPEATS = 5
#        name, queries, scenes, listed scenes (0: all, -1: all but the query's own, as a list), people, appearances of each, noise of the embedding
CASES = [('CUHK-SYSU, 100 scenes a query', 2900, 6978, 100, 2900, 3, 2.2), ('PRW, all scenes', 2057, 6112, 0, 450, 42, 3.), ('PRW, all but the own scene', 2057, 6112, -1, 450, 42, 3.),
         ('PRW, a hopeless embedding', 2057, 6112, 0, 450, 42, 6.), ('CUHK-SYSU, all scenes', 2900, 6978, 0, 2900, 3, 2.2), ('CUHK-SYSU, all but the own scene', 2900, 6978, -1, 2900, 3, 2.2)]


def world(queries, scenes, listed, people, appearances, noise, boxes=6, dim=256, seed=0):
    "Detections as `match_search` takes them: `boxes` in each scene, `appearances` of each person in different scenes, found a few px beside the truth."
    rng = np.random.default_rng(seed)
    unit = lambda x: (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)
    m = scenes * boxes
    xy, h = rng.uniform(0, 600, (m, 2)), rng.uniform(60, 200, (m, 1))
    det_boxes = np.hstack([xy, xy + h * [.41, 1]])
    whole = scenes // appearances * appearances  # so that nobody is in one scene twice
    seen = np.concatenate([rng.permutation(scenes)[:whole] * boxes + k for k in range(boxes)])[:people * appearances].reshape(people, appearances)
    faces, feats = unit(rng.standard_normal((people, dim))), unit(rng.standard_normal((m, dim)))
    feats[seen] = unit(faces[:, None] + noise * rng.uniform(.5, 1.5, (people, appearances, 1)) * feats[seen])
    who = np.arange(queries) % people
    rows, gt_query = seen[who].ravel(), np.repeat(np.arange(queries), appearances)
    own, candidates = rng.integers(scenes, size=queries), None
    if listed > 0: candidates = np.stack([np.r_[seen[p] // boxes, rng.permutation(np.setdiff1d(np.arange(scenes), seen[p] // boxes))[:listed - appearances]] for p in who])
    if listed < 0: candidates = np.arange(scenes - 1)[None] + (np.arange(scenes - 1) >= own[:, None])
    return dict(det_image=np.arange(m) // boxes, det_boxes=det_boxes, det_scores=rng.uniform(.5, 1, m), det_feats=feats, query_feats=unit(faces[who] + noise / 2 * unit(rng.standard_normal((queries, dim)))),
                gt_query=gt_query, gt_image=rows // boxes, gt_boxes=det_boxes[rows] + rng.normal(0, 3, (len(rows), 4)), candidates=candidates)


def iou(a, b):
    x1, y1, x2, y2 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    inter = max(0, x2 - x1) * max(0, y2 - y1)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def plain_average_precision(y_true, y_score):
    y = y_true[np.argsort(-y_score, kind='stable')]
    return (np.cumsum(y) / np.arange(1, len(y) + 1))[y > 0].mean()


def by_scene(det_image, det_boxes, det_scores, det_feats, query_feats, gt_query, gt_image, gt_boxes, candidates):
    "Detections and true boxes where the loop looks for them; not timed."
    start, det = np.searchsorted(det_image, np.arange(det_image.max() + 2)), np.c_[det_boxes, det_scores]
    truth = [{} for _ in query_feats]
    for q, s, b in zip(gt_query.tolist(), gt_image.tolist(), gt_boxes): truth[q][s] = b
    return {s: (det[a:b], det_feats[a:b]) for s, (a, b) in enumerate(zip(start, start[1:]))}, truth


def field_loop(average_precision, found, truth, query_feats, candidates, queries):
    "As public evaluators do it: for each query, for each scene one small product and its labels; lists of labels, scores, names and boxes; a sort for each query."
    aps = []
    for q in queries:
        y_true, y_score, names, boxes, positives, hits = [], [], [], [], 0, 0
        for s in range(len(found)) if candidates is None else candidates[q].tolist():
            det, feats = found[s]
            similarity, label, true_box = feats.dot(query_feats[q]), np.zeros(len(det), np.int32), truth[q].get(s)
            if true_box is not None:
                positives += 1
                w, h = true_box[2] - true_box[0], true_box[3] - true_box[1]
                order = np.argsort(similarity)[::-1]
                similarity, det = similarity[order], det[order]
                for j, box in enumerate(det[:, :4]):
                    if iou(box, true_box) >= min(.5, w * h / ((w + 10) * (h + 10))): label[j] = 1; hits += 1; break
            y_true.extend(list(label)); y_score.extend(list(similarity)); names.extend([s] * len(det)); boxes.extend(list(det))
        y_true, y_score = np.asarray(y_true), np.asarray(y_score)
        aps.append(average_precision(y_true, y_score) * hits / positives if hits else 0.)
        np.argsort(y_score)  # again, for the top-k
    return float(np.mean(aps))


def seconds(*ways, repeats=REPEATS):
    "Shortest time of each, taken in turns."
    times = [[] for _ in ways]
    for run in range(repeats):
        for kept, way in zip(times, ways): start = time.perf_counter(); way(); kept.append(time.perf_counter() - start)
    return [min(t) for t in times]


def measure():
    try: from sklearn.metrics import average_precision_score as average_precision
    except ImportError: average_precision = plain_average_precision
    print(f'\n## {THREADS} thread{"s" * (THREADS != "1")}\n\n| case | detections | mAP | bare product (s) | evaluator (s) | of the product | memory (MB) | loop (s) | faster than the loop |\n|---|---|---|---|---|---|---|---|---|')
    for name, *case in CASES:
        w = world(*case)
        q, f = w['query_feats'], w['det_feats']
        room = np.empty((200, len(f)), np.float32)
        def bare():
            for k in range(0, len(q), 200): np.matmul(q[k:k + 200], f.T, out=room[:len(q[k:k + 200])])
        match_search(**w), bare()
        product, ours = seconds(bare, lambda: match_search(**w))
        tracemalloc.start(); m = match_search(**w); memory = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
        loop = ['', '']
        if THREADS == '1' and case[2] >= 0:
            some = range(len(q)) if case[2] > 0 else range(0, len(q), len(q) // 20)
            got, indexed = [], by_scene(**w)
            took, = seconds(lambda: got.append(field_loop(average_precision, *indexed, q, w['candidates'], some)), repeats=1)
            assert abs(got[0] - summarize(m, queries=list(some))['mAP']) < 1e-6
            took *= len(q) / len(some)
            loop = [f'{took:.1f}' + ('' if len(some) == len(q) else ' *'), f'**{took / ours:.0f}x**']
        print(f'| {name} | {len(q):,} x {len(f):,} | {summarize(m)["mAP"]:.2f} | {product:.2f} | {ours:.3f} | **{ours / product:.2f}x** | {memory / 2**20:.0f} | {loop[0]} | {loop[1]} |', flush=True)
    if THREADS == '1': print(f'\nThe loop uses {"scikit-learn" if average_precision is not plain_average_precision else "a plain numpy"} average precision and gives the same mAP to 1e-6. * measured on every hundredth query, times all.')


def main():
    from ops import cpu_name
    print(f"""# The evaluator's speed

`python benchmarks/evaluation.py > benchmarks/evaluation.md` · {date.today()} · {platform.system()} {platform.machine()}, {cpu_name()}, {os.cpu_count()} cores · Python {platform.python_version()}, numpy {np.__version__}, torch {torch.__version__}

`match_search` with six boxes in each scene and embeddings of 256 numbers, against the matrix product of all query and all gallery embeddings alone (in blocks of 200 queries, into a buffer that is there already), and against a loop as public evaluators have it.
Shortest of {REPEATS} runs, in turns. Memory: the most that numpy held beyond the inputs. Load of the machine at the start: {os.getloadavg()[0]:.1f}.""", flush=True)
    for threads in ('1', '2'): subprocess.run([sys.executable, __file__], env=os.environ | {'EVALUATION_THREADS': threads}, check=True)


if __name__ == '__main__': measure() if THREADS else main()
