"""The papers' claims at laptop size: train the rows of a table where no trunk hides what they say, and print what shows.

    python benchmarks/claims.py --list                 # what there is, and how long it takes
    python benchmarks/claims.py table6                 # trains what is missing, then prints; goes on where it was stopped
    python benchmarks/claims.py table6 --workers 2     # two trainings at once, a core each
    python benchmarks/claims.py --page                 # of all that is measured: benchmarks/claims.md
    python benchmarks/claims.py table6 --steps 0.02 --seeds 0 --out runs/try      # proves only that it runs

Every claim is measured in worlds of its own (one for each seed), which no trunk has seen and on which no setting was chosen.
"""
import argparse
import platform
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import torch

from person_search_nb.ablations import ablation_table, run_ablation
from person_search_nb.files import atomic_write, read_json
from person_search_nb.tables import TABLES
from person_search_nb.training import read_log

WORLD = 'synth:tiny?train_scenes=480&train_ids=300&seed=10{seed}'
SHIPPED = dict(epochs=4.)  # 480 steps from the trunk that ships, which stands for ImageNet
RANDOM = dict(start='', imprint=False, epochs=10.)  # 1,200 steps from nothing
TAUGHT = dict(lambdas=(.9, 400., 100.), temperature=4., hinton=False)  # as printed, but AD and FD for small maps
PD, FD, AD, ALONE, ALL = 'PD', 'FD', 'AD', 'no distillation', 'FD + AD + PD'


@dataclass(frozen=True)
class Claim:
    "A table of a paper, as it is run here."
    table: str            # a name of `TABLES`
    hours: float          # three seeds on one core of 2026
    gains: tuple          # of (row, row it is better than) in the paper
    teacher: dict         # settings of every row that is not HDL's student
    student: dict         # and of what is
    student_model: str = 'hdl-student-fast'

    def with_settings(self, share):
        "The paper's table, its rows with these settings; `share` of the epochs."
        def scaled(settings): return settings | dict(epochs=settings['epochs'] * share)
        def taught(row):
            if not row.model: return row
            own = scaled(self.student if row.model == 'hdl-student' else self.teacher)
            if row.model.startswith('hdl'): own |= dict(factored=True)  # as the preset has it; some of the papers' tables have not
            return replace(row, settings=row.settings | own, teacher=row.teacher and taught(row.teacher))
        table = TABLES[self.table]
        return replace(table, rows=tuple(taught(r) for r in table.rows))


_TABLE6 = ((PD, ALONE), (FD, ALONE), (AD, ALONE), ('FD + AD', ALONE), (ALL, ALONE), (ALL, PD), (PD, FD), (FD, AD))
_TABLE2 = ('HDL(T)', 'HDL(S)'), ('HDL(S)', 'OIM'), ('HDL(T)', 'OIM'), ('HDL(T)', 'OIM, as long as HDL(T)'), ('CLSA', 'HDL(T)'), ('QEEPS, query-guided', 'OIM')
CLAIMS = {
    'table6': Claim('table6', 3, _TABLE6, SHIPPED, RANDOM | TAUGHT),
    'table6-paper-student': Claim('table6', 8, _TABLE6, SHIPPED, RANDOM | TAUGHT, 'hdl-student'),
    'table5': Claim('table5', 1.5, (('teacher, with attention', 'teacher, without attention'), ('student, with attention', 'student, without attention')), RANDOM, RANDOM),
    'table2': Claim('table2', 3, _TABLE2, SHIPPED, SHIPPED | TAUGHT),
    'figure6': Claim('figure6', 2.5, _TABLE2[:3], SHIPPED, SHIPPED | TAUGHT),  # the networks of Table 2
    'table7': Claim('table7', .7, (('softmax', 'centre'), ('softmax', 'softmax + centre')), SHIPPED, {}),
    'table8': Claim('table8', 2, (('ARM', 'no attention'), ('non-local', 'ARM')), RANDOM, {}),
}


def verdict(result, better, other):
    "One line: the gain of a row over another, in the paper and here, seed by seed, and whether it shows."
    of = {r['label']: r for r in result['rows']}
    a, b, measure = of[better], of[other], result['measure']
    gains = [100 * (x[measure] - y[measure]) for x, y in zip(a['runs'], b['runs'])]
    printed = [p[s][measure] - q[s][measure] for p, q in [(a['paper'], b['paper'])] for s in p if measure in p[s] and measure in q.get(s, {})]
    shows = 'one seed shows nothing' if len(gains) < 2 else '**shows in every seed**' if min(gains) > 0 else '**the reverse shows in every seed**' if max(gains) < 0 else '**does not show** beyond the seeds'
    words = f'{better} over {other}: {sum(gains) / len(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f}), {shows}'
    return words + (f' (paper: {printed[0]:+.1f})' if printed else '')


def minutes(result):
    "Minutes of training of all networks of a table, how many there are, and of how many steps each."
    logs = [read_log(f / 'log.csv') for f in {Path(run['folder']) for row in result['rows'] for run in row['runs']}]
    return sum(log[-1]['seconds'] for log in logs) / 60, len(logs), ' or '.join(map(str, sorted({len(log) for log in logs})))


def section(name, out):
    "Markdown of a claim: what shows, what it cost, and its table."
    result = read_json(out / name / 'results.json')
    took, networks, steps = minutes(result)
    lines = [f"## {result['title']}", '', *(f'* {verdict(result, *g)}' for g in CLAIMS[name].gains), '',
             f"`python benchmarks/claims.py {name}`: {networks} networks of {steps} steps, {took:.0f} minutes of training together, a core each; worlds and seeds of the weights: "
             f"{', '.join(f'10{s} and {s}' for s in result['seeds'])}; {result['rows'][0]['runs'][0]['queries']} queries in each world.", '']
    return '\n'.join(lines) + '\n' + ablation_table(result).partition('\n\n')[2]


HEAD = """# What of the papers' claims shows at laptop size

**Result.** {result}

`{command}` · {today} · {machine}, one thread for each training · Python {python}, torch {torch}

Means over the seeds, in brackets the lowest and the highest. A gain *shows* where it has the same sign in every seed: with few seeds that is little proof, and nothing is said of its size.
What differs from the papers in every table: drawn scenes (480 of 256 x 448 px with 300 people, another world for each seed, which no trunk has seen and on which no setting was chosen), a quarter of the width (students: 0.625), AdamW with a cosine, a start from the trunk that ships with the package or from random weights, few steps (said at
each table), 12 regions a scene. Students of HDL are taught as printed (PD 0.9, T = 4, the printed direction), but for the weights of AD and FD, which are 400 and 100: the printed ones are for a norm over larger maps.
"""


def page(out):
    "The page of all claims that were measured in the folder `out`."
    found = [name for name in CLAIMS if (out / name / 'results.json').exists()]
    if not found: raise SystemExit(f'{out}: nothing is measured there; run: python benchmarks/claims.py table6')
    lines = [line for name in found for g in CLAIMS[name].gains for line in [verdict(read_json(out / name / 'results.json'), *g)]]
    shown = sum('**shows' in line for line in lines)
    about = dict(result=f'Of {len(lines)} comparisons of the papers {shown} show in every seed.', command='python benchmarks/claims.py --page', today=date.today(),
                 machine=f'{platform.system()} {platform.machine()}', python=platform.python_version(), torch=torch.__version__.partition('+')[0])
    return '\n'.join([HEAD.format(**about), *(section(name, out) for name in found)])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('name', nargs='?', choices=list(CLAIMS), metavar='CLAIM', help=', '.join(CLAIMS))
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    p.add_argument('--workers', type=int, default=1, help='trainings at once')
    p.add_argument('--out', type=Path, default=Path('runs/claims'), help='folder for tables and networks')
    p.add_argument('--steps', type=float, default=1., help='share of the steps, for a quick try')
    p.add_argument('--page', type=Path, nargs='?', const=Path('benchmarks/claims.md'), help='write the page of all that is measured')
    p.add_argument('--list', action='store_true', help='what there is')
    a = p.parse_args()
    if a.page: return atomic_write(a.page, page(a.out).encode())
    if a.list or not a.name:
        for name, c in CLAIMS.items(): print(f'{name}: {TABLES[c.table].title}; about {c.hours:g} hours on one core')
        return
    c = CLAIMS[a.name]
    run_ablation(f'claim-{a.name}', WORLD, 'tiny', a.out / a.name, a.out / 'networks', tuple(a.seeds), c.student_model, workers=a.workers,
                 rows=c.with_settings(a.steps))
    print(section(a.name, a.out))


if __name__ == '__main__': main()
