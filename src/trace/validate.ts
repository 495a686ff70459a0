import { SmoeError } from '../errors.ts';
import type { RoutingTrace, TraceModel } from './routing-trace.ts';

const largestExperts = 65536;
const largestTopK = 255;

function invalid(where: string, message: string): SmoeError {
  return new SmoeError('TRACE_INVALID', `${where}: ${message}`, {
    hint: 'record or import the trace again; rows must hold in-range ids, grouped by request in order of position',
  });
}

function requireCount(where: string, field: string, value: unknown, least: number, most: number): void {
  if (!Number.isInteger(value) || (value as number) < least || (value as number) > most) {
    throw invalid(where, `${field} is ${String(value)}, expected an integer from ${least} to ${most}`);
  }
}

/** Throws TRACE_INVALID unless the model facts are usable. `where` names the file. */
export function validateTraceModel(where: string, model: TraceModel): void {
  if (typeof model.fingerprint !== 'string' || model.fingerprint === '')
    throw invalid(where, 'model fingerprint is missing');
  requireCount(where, 'layers', model.layers, 1, 4096);
  requireCount(where, 'experts', model.experts, 1, largestExperts);
  requireCount(where, 'topK', model.topK, 1, Math.min(model.experts, largestTopK));
  requireCount(where, 'vocabularySize', model.vocabularySize, 0, 2 ** 31 - 1);
}

/** Throws TRACE_INVALID or TRACE_EMPTY, naming row and field, unless every row keeps the promises of RoutingTrace. */
export function validateTrace(where: string, trace: RoutingTrace): void {
  validateTraceModel(where, trace.model);
  if (trace.length === 0) {
    throw new SmoeError('TRACE_EMPTY', `${where}: the trace holds no rows`, { hint: 'record at least one request' });
  }
  validateOrder(where, trace);
  validateTokens(where, trace);
  validateExperts(where, trace);
}

function validateOrder(where: string, { length, request, position, labels }: RoutingTrace): void {
  let current = -1;
  let lastPosition = -1;
  for (let row = 0; row < length; row++) {
    if (request[row] !== current) {
      if (request[row] !== current + 1) {
        throw invalid(
          where,
          `row ${row}: request ${request[row]} follows request ${current}; requests must be consecutive from 0`,
        );
      }
      current++;
      lastPosition = -1;
    }
    if (position[row]! <= lastPosition) {
      throw invalid(where, `row ${row}: position ${position[row]} does not ascend within request ${current}`);
    }
    lastPosition = position[row]!;
  }
  if (labels.length !== current + 1)
    throw invalid(where, `labels: ${labels.length} labels for ${current + 1} requests`);
}

function validateTokens(where: string, { length, token, phase, model }: RoutingTrace): void {
  const vocabularySize = model.vocabularySize;
  for (let row = 0; row < length; row++) {
    const id = token[row]!;
    if (id < -1 || (vocabularySize > 0 ? id >= vocabularySize : id !== -1)) {
      throw invalid(where, `row ${row}: token ${id} is outside the vocabulary of ${vocabularySize}`);
    }
    if (phase[row]! > 1) throw invalid(where, `row ${row}: phase ${phase[row]} is neither 0 (prefill) nor 1 (decode)`);
  }
}

/** Set by set without branches, as this is most of what reading costs after decompression; only a bad set is looked at again. */
function validateExperts(where: string, { length, experts, model }: RoutingTrace): void {
  const { layers, topK } = model;
  const largest = model.experts - 1;
  const sets = length * layers;
  for (let set = 0, at = 0; set < sets; set++) {
    let previous = -1;
    // Negative as soon as one difference is: an id that does not ascend, or one above the largest.
    let signs = 0;
    for (const end = at + topK; at < end; at++) {
      const expert = experts[at]!;
      signs |= (expert - previous - 1) | (largest - expert);
      previous = expert;
    }
    if (signs < 0) throw badSet(where, set, experts.subarray(at - topK, at), model);
  }
}

/** Names the first expert of a bad set that breaks a rule. */
function badSet(where: string, set: number, ids: Uint16Array, { layers, experts }: TraceModel): SmoeError {
  const at = ids.findIndex((expert, i) => expert >= experts || (i > 0 && expert <= ids[i - 1]!));
  const field = `row ${Math.floor(set / layers)}, layer ${set % layers}: expert ${ids[at]}`;
  const problem = ids[at]! >= experts ? ` of ${experts}` : ` after ${ids[at - 1]}; ids must ascend without repeats`;
  return invalid(where, field + problem);
}
