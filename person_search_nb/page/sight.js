// What the networks see of pictures: computed once, and kept.

import { gainLike } from './distance.js';
import { AS_LEARNED, OFF } from './network.js';

const KEPT = 48;  // pictures, each under one kind of attention

export class Sight {
  // networks: name -> Network; the teacher is among them, and comes first
  constructor(networks) { Object.assign(this, { networks, kept: new Map(), number: 0 }); }

  // the entry of a picture, perhaps an empty one; `key` says which picture it is
  entry(key, attention) {
    const name = `${key} ${attention}`, old = this.kept.get(name);
    const entry = old ?? { number: ++this.number, attention };
    this.kept.delete(name);
    this.kept.set(name, entry);  // the newest stands last
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
    return entry;
  }

  // fill in what one network sees; the teacher has to be asked first
  async see(entry, name, image) {
    if (entry[name]) return;
    const gains = await this.gains(entry, name, image);
    entry[name] = { ...await this.networks[name].search(image, gains), gains };
  }

  async gains({ attention, teacher }, name, image) {
    if (attention === 'off') return OFF;
    if (attention !== 'teacher' || name === 'teacher') return AS_LEARNED;
    const gains = [...AS_LEARNED];
    for (let j = 0; j < 3; j++) {  // what a level gets depends on the levels before it
      const { maps } = await this.networks[name].look(image, gains);
      gains[j] = gainLike(teacher.maps[j].mean_a, maps[j].mean_a);
    }
    return gains;
  }
}
