import { calibrateVerb } from './calibrate.ts';
import type { CommandLine } from './command-line.ts';
import { compareVerb } from './compare.ts';
import { exportVerb } from './export.ts';
import { generateVerb } from './generate.ts';
import { planDiffVerb } from './plan-diff.ts';
import { planVerb } from './plan.ts';
import { simulateVerb } from './simulate.ts';
import { testbedDownVerb } from './testbed-down.ts';
import { testbedRunVerb } from './testbed-run.ts';
import { testbedStatusVerb } from './testbed-status.ts';
import { testbedUpVerb } from './testbed-up.ts';
import { traceImportVerb } from './trace-import.ts';
import { traceRecordVerb } from './trace-record.ts';
import { traceShowVerb } from './trace-show.ts';

/** Everything `smoe` can do; a new verb is one file and one entry here. */
export function commandLineOf(version: string): CommandLine {
  return {
    summary: 'smoe: mixture-of-experts inference that moves fewer bytes between devices, with the same outputs.',
    version,
    verbs: [
      compareVerb,
      generateVerb,
      traceRecordVerb,
      traceImportVerb,
      traceShowVerb,
      planVerb,
      planDiffVerb,
      simulateVerb,
      exportVerb,
      calibrateVerb,
      testbedUpVerb,
      testbedRunVerb,
      testbedStatusVerb,
      testbedDownVerb,
    ],
    examples: [
      { command: 'compare', does: 'the shipped model under every schedule on four ranks, side by side' },
      { command: 'generate --prompt "The printf function"', does: 'complete a text on one rank' },
    ],
  };
}
