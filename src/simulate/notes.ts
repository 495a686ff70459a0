import type { Layout } from '../engine/api.ts';
import type { SimulationResult } from './simulate.ts';

/** Why a setup gains little or nothing, for people; `code` is stable. */
export interface Note {
  code:
    | 'one-rank'
    | 'gathers-everything'
    | 'padded'
    | 'no-shuffling'
    | 'compute-bound'
    | 'latency-bound'
    | 'approximated';
  text: string;
}

/** Below this share of step time, better expert exchange is not worth the trouble. */
const smallShare = 0.05;
/** Below this share of communication time spent on bytes, sending fewer of them hardly helps. */
const smallByteShare = 1 / 3;

/** @param byteShare of communication time, the part that bytes take */
export function notesOf(result: SimulationResult, layout: Layout, byteShare: number): Note[] {
  const { name, homes, expertExchangeShare } = result;
  const notes: Note[] = [];
  const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;
  if (layout.dataParallel * layout.tensorParallel === 1) {
    return [{ code: 'one-rank', text: 'one rank sends nothing: no plan or schedule can save anything' }];
  }
  if (name === 'gather-all') {
    notes.push({
      code: 'gathers-everything',
      text: 'every row goes to every rank whatever the plan: placement saves no byte here; choose a back end that sends rows only where they are needed (such as DeepEP)',
    });
  }
  if (name === 'deepspeed-moe') {
    notes.push({
      code: 'padded',
      text: 'every expert is sent as many rows as the busiest one: grouping experts saves nothing and concentrating tokens costs more',
    });
  }
  if (name === 'speculative' && layout.tensorParallel === 1) {
    notes.push({
      code: 'no-shuffling',
      text: 'attention is data-parallel: tokens stay on the rank of their request, only request placement and the plan save bytes',
    });
  }
  if (expertExchangeShare < smallShare) {
    notes.push({
      code: 'compute-bound',
      text: `dispatch and combine take ${percent(expertExchangeShare)} of the time here: no plan or schedule can gain more than that`,
    });
  } else if (byteShare < smallByteShare) {
    notes.push({
      code: 'latency-bound',
      text: `bytes take ${percent(byteShare)} of communication time, latency and messages the rest: fewer bytes help little, larger steps more`,
    });
  }
  if (homes === 'approximated') {
    notes.push({
      code: 'approximated',
      text: 'the pregate needs the model: its hits were drawn at an assumed rate; run `smoe compare` for exact figures',
    });
  }
  return notes;
}
