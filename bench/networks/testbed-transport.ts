import type { SessionOptions } from '../../src/engine/api.ts';

export function testbedTransport(_environment: Record<string, string | undefined>): Pick<SessionOptions, 'transport'> {
  throw new Error('not yet');
}
