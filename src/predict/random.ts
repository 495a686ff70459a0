import type { Plan } from '../plan/plan.ts';
import type { DevicePredictor } from './predictor.ts';

/** The adversary of the tests: knows nothing, but every rank guesses alike. Depends on seed, layer and token index only. */
export function createRandomPredictor(plan: Plan, seed: number): DevicePredictor {
  const { devices } = plan;
  return {
    name: 'random',
    atHome: () => false,
    predict({ layer, tokens }, needs) {
      for (let at = 0; at < tokens * devices; at++) {
        let bits =
          Math.imul(seed + 0x9e3779b9, 0x85ebca6b) ^ Math.imul(layer + 1, 0xc2b2ae35) ^ Math.imul(at + 1, 0x27d4eb2f);
        bits = Math.imul(bits ^ (bits >>> 15), 0x2c1b3c6d);
        bits = Math.imul(bits ^ (bits >>> 12), 0x297a2d39);
        needs[at] = (bits ^ (bits >>> 15)) >>> 24;
      }
    },
  };
}
