// Six steps for a newcomer: each sets the page to something and says what to look at,
// and in whose picture.

export const TOUR = [
  [{}, 'Everyone whom a network finds has a box. Three networks look at one scene: the teacher, '
    + 'a student it has taught, and the same student taught by labels alone.'],
  [{ person: 1 }, 'Click a box, and each network looks for that person among all others. Green: '
    + 'the same person, orange: someone else. Below each picture are the most similar ones.'],
  [{ quantity: 'x' }, 'Feature energy: where a network has something to say. People are bright.'],
  [{ quantity: 'difference' }, 'Where the teacher has more energy than a student (orange), and '
    + 'where less (purple). FD is a mean square of such differences: compare both students.',
  'taught'],
  [{ quantity: 'mean_a', attention: 'off' }, 'Attention switched off: boxes are lost or moved, and '
    + 'the rankings change. Put it on again to compare.'],
  [{ quantity: 'x', attention: 'teacher' }, 'The teacher’s attention in its students: they look '
    + 'where it looks. Does that make them better? Now bring a picture of your own.', 'taught'],
];
