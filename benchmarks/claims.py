"""The papers' claims at laptop size: train the rows of a table where no trunk hides what they say, and print the table.

    python benchmarks/claims.py --list
    python benchmarks/claims.py table6                 # trains what is missing, then prints; goes on where it was stopped
    python benchmarks/claims.py table6 --workers 2     # two trainings at once, a core each
    python benchmarks/claims.py table6 --steps 0.02 --seeds 0 --out runs/try      # proves only that it runs

Every claim has worlds of its own (one for each seed), which no trunk has seen and on which no setting was chosen.
"""
import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from person_search_nb.ablations import ablation_table, run_ablation
from person_search_nb.tables import TABLES

WORLD = 'synth:tiny?train_scenes=480&train_ids=300&seed=10{seed}'
TEACHER = dict(epochs=4.)  # 480 steps from the shipped trunk, which stands for ImageNet
STUDENT = dict(start='', imprint=False, epochs=10., lambdas=(.9, 400., 100.), temperature=4., hinton=False)  # as printed, but AD and FD for small maps


@dataclass(frozen=True)
class Claim:
    "A table of a paper, as it is run here."
    table: str            # a name of `TABLES`
    says: str             # what the paper claims
    teacher: dict         # settings of teachers
    student: dict         # and of what learns from them
    student_model: str = 'hdl-student-fast'

    def rows(self, share):
        "The table's rows with these settings; `share` of the epochs."
        def scaled(settings): return settings | dict(epochs=settings['epochs'] * share)
        def taught(row):
            learns = row.model == 'hdl-student'
            teacher = row.teacher and replace(row.teacher, settings=row.teacher.settings | scaled(self.teacher))
            return replace(row, teacher=teacher, settings=row.settings | scaled(self.student if learns else self.teacher))
        return [taught(r) for r in TABLES[self.table].rows]


CLAIMS = {
    'table6': Claim('table6', 'HDL, Table 6: PD alone is worth most, FD more than AD, all three most of all', TEACHER, STUDENT),
    'table6-paper-student': Claim('table6', "the same with the paper's student, which costs three times as much", TEACHER, STUDENT, 'hdl-student'),
    'table5': Claim('table5', 'HDL, Table 5: attention helps teacher and student', dict(start='', imprint=False, epochs=10.), STUDENT),
}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('name', nargs='?', choices=list(CLAIMS), metavar='CLAIM', help=', '.join(CLAIMS))
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    p.add_argument('--workers', type=int, default=1, help='trainings at once')
    p.add_argument('--out', type=Path, default=Path('runs/claims'), help='folder for tables and networks')
    p.add_argument('--steps', type=float, default=1., help='share of the steps, for a quick try')
    p.add_argument('--list', action='store_true', help='what there is')
    a = p.parse_args()
    if a.list or not a.name:
        for name, c in CLAIMS.items(): print(f'{name}: {c.says}')
        return
    c = CLAIMS[a.name]
    result = run_ablation(f'claim-{a.name}', WORLD, 'tiny', a.out / a.name, a.out / 'networks', tuple(a.seeds), c.student_model, workers=a.workers,
                          rows=c.rows(a.steps), factored=True)
    print(ablation_table(result))


if __name__ == '__main__': main()
