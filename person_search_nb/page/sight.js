// What the networks see of pictures: computed once, and kept.

import { gainLike } from './distance.js';
import { AS_LEARNED, OFF } from './network.js';

const KEPT = 48;  // pictures, each under one kind of attention

export class Sight {
  // networks: name -> RemoteNetwork; the teacher is among them. after: name -> another network
  // that has its turn first, where there are fewer processors than networks
  constructor(networks, after = {}) {
    Object.assign(this, { networks, after, kept: new Map(), turns: {}, number: 0 });
  }

  // the entry of a picture, perhaps an empty one; `key` says which picture it is
  entry(key, attention) {
    const name = `${key} ${attention}`, old = this.kept.get(name);
    const entry = old ?? { number: ++this.number, key, attention };
    this.kept.delete(name);
    this.kept.set(name, entry);  // the newest stands last
    if (this.kept.size > KEPT) this.forget(this.kept.keys().next().value);
    return entry;
  }

  forget(oldest) {
    const old = this.kept.get(oldest);
    this.kept.delete(oldest);
    const left = [...this.kept.values()];
    for (const [name, network] of Object.entries(this.networks)) {
      const shared = left.some(e => e[name] === old[name]);
      if (old[name] && !shared) network.forget(old[name].features);
    }
  }

  // Fill in what one network sees. A network does one thing after another; what is not `wanted`
  // any more when its turn comes is left out.
  async see(entry, name, image, wanted = () => true) {
    if (entry[name]) return;
    if (entry.attention === 'teacher') {
      if (name === 'teacher') { await this.seeAsLearned(entry, image, wanted); return; }
      await this.see(entry, 'teacher', image, wanted);  // its maps are what students need
    }
    const turn = this.before(entry, name).then(async () => {
      if (!entry[name] && wanted()) entry[name] = await this.search(entry, name, image);
    });
    this.turns[name] = turn.catch(() => {});  // a failure is told to whoever asked, not to the next
    await turn;
  }

  // When a network may begin. On two processors the first answer comes sooner when students take
  // turns, and the last no later; where the teacher has nothing to do they need not.
  before({ teacher }, name) {
    const first = teacher ? undefined : this.after[name];
    return Promise.all([this.turns[name], this.turns[first]]);
  }

  // Its own attention is nothing new to the teacher.
  async seeAsLearned(entry, image, wanted) {
    const learned = this.entry(entry.key, 'learned');
    await this.see(learned, 'teacher', image, wanted);
    entry.teacher = learned.teacher;
  }

  async search(entry, name, image) {
    const gains = await this.gains(entry, name, image);
    return { ...await this.networks[name].search(image, gains), gains };
  }

  async gains({ key, attention, teacher }, name, image) {
    if (attention === 'off') return OFF;
    if (attention === 'learned') return AS_LEARNED;
    const gains = [...AS_LEARNED], network = this.networks[name];
    let { maps } = this.entry(key, 'learned')[name] ?? await network.look(image, gains);
    for (let j = 0; j < 3; j++) {  // what a level gets depends on the levels before it
      if (j > 0) ({ maps } = await network.look(image, gains));
      gains[j] = gainLike(teacher.maps[j].mean_a, maps[j].mean_a);
    }
    return gains;
  }
}
