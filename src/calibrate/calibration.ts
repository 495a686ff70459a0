import { launchMpiRanks } from '../comm/mpi-rank-group.ts';
import { contiguousPlan } from '../plan/contiguous-plan.ts';
import type { ModelConfig } from '../model/config.ts';
import { type FittedRates, fitRates, modelledSeconds } from './device-rates.ts';
import { measureEngine } from './engine-pieces.ts';
import {
  type CalibratedTransport,
  type ExchangeCost,
  type ExchangeOptions,
  exchangeLaunchers,
  measureExchange,
} from './exchange-cost.ts';
import type { MeasuredHosts } from './cluster-text.ts';
import { measurePrediction } from './prediction-cost.ts';

export interface CalibrationOptions {
  modelDirectory: string;
  config: ModelConfig;
  modelFingerprint: string;
  /** Text of which prompts are made. */
  tokens: Int32Array;
  /** Cores that ranks will share. */
  cores: number;
  ranks: number;
  transport: CalibratedTransport;
  /** Hosts of a testbed whose links are measured too. */
  testbed?: { hosts: number; mpirunArguments: string[] };
  repeats: number;
  signal: AbortSignal;
  onProgress: (what: string) => void;
}

/** What this machine does, in the terms of the simulator. */
export interface Calibration {
  cores: number;
  ranks: number;
  transport: CalibratedTransport;
  rates: FittedRates;
  predictSeconds: number;
  /** Among ranks of one host. */
  exchange: ExchangeCost;
  /** Among ranks of several. */
  network?: MeasuredHosts;
  /** What the rates were fitted to, and what the model makes of it. */
  pieces: { name: string; seconds: number; modelledSeconds: number }[];
}

const stepTokens = 512;

/** Measures the engine's own pieces: one rank per core at once, then exchanges among all ranks. Takes a minute or two. */
export async function calibrate(options: CalibrationOptions): Promise<Calibration> {
  const { cores, ranks, transport, testbed, signal, onProgress } = options;
  onProgress(`exchanges among ${ranks} ranks`);
  const exchange = await measureExchange({ ranks, launch: exchangeLaunchers[transport], signal });
  const network = testbed && (await measureTestbed(testbed, options));
  const { measured, trace } = await measureEngine({
    ...options,
    plan: contiguousPlan({ config: options.config, fingerprint: options.modelFingerprint }, 1),
    copies: cores,
    onProgress: (done, total) => onProgress(`engine, ${done} of ${total} pieces`),
  });
  onProgress('prediction');
  const predictSeconds = measurePrediction(
    trace,
    contiguousPlan({ config: options.config, fingerprint: options.modelFingerprint }, ranks),
    ranks,
    stepTokens,
  );
  const rates = fitRates(measured);
  const pieces = measured.map((piece) => ({
    name: piece.name,
    seconds: piece.seconds,
    modelledSeconds: modelledSeconds(piece, rates),
  }));
  return { cores, ranks, transport, rates, predictSeconds, exchange, ...(network && { network }), pieces };
}

async function measureTestbed(
  { hosts, mpirunArguments }: { hosts: number; mpirunArguments: string[] },
  { ranks, signal, onProgress }: CalibrationOptions,
): Promise<MeasuredHosts> {
  onProgress(`exchanges among ${hosts} hosts`);
  const launch: ExchangeOptions['launch'] = (options) => launchMpiRanks({ ...options, mpirunArguments });
  return { count: hosts, exchange: await measureExchange({ ranks, hosts, launch, signal }) };
}
