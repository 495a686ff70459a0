import { SmoeError } from '../errors.ts';

/** The memories that a rank has attached, with what its transport keeps of each; one is in use. */
export class AttachedMemories<Views> {
  /** Undefined before the first `attach`. */
  buffer: SharedArrayBuffer | undefined;
  private readonly viewsOf: Map<SharedArrayBuffer, Views> = new Map();

  /** Throws COMM_MEMORY for a memory that is attached already. */
  assertNew(buffer: SharedArrayBuffer): void {
    if (this.viewsOf.has(buffer)) throw new SmoeError('COMM_MEMORY', 'this memory is attached already');
  }

  /** Adds a memory and takes it in use. */
  add(buffer: SharedArrayBuffer, views: Views): void {
    this.viewsOf.set(buffer, views);
    this.buffer = buffer;
  }

  /** Takes a memory in use; its views. `idle` = no request of the rank is under way. */
  use(buffer: SharedArrayBuffer, idle: boolean): Views {
    if (!this.viewsOf.has(buffer)) throw new SmoeError('COMM_MEMORY', 'the memory to use has not been attached');
    if (buffer !== this.buffer && !idle) {
      throw new SmoeError('COMM_MEMORY', 'another memory cannot be taken in use while collectives are under way');
    }
    this.buffer = buffer;
    return this.viewsOf.get(buffer) as Views;
  }
}
