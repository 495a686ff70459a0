import { contiguousPlan } from '../plan/contiguous-plan.ts';
import type { ModelConfig } from '../model/config.ts';
import { type FittedRates, fitRates, modelledSeconds } from './device-rates.ts';
import { measureEngine } from './engine-pieces.ts';
import { type CalibratedTransport, type ExchangeCost, measureExchange } from './exchange-cost.ts';
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
  exchange: ExchangeCost;
  /** What the rates were fitted to, and what the model makes of it. */
  pieces: { name: string; seconds: number; modelledSeconds: number }[];
}

const stepTokens = 512;

/** Measures the engine's own pieces: one rank per core at once, then exchanges among all ranks. Takes a minute or two. */
export async function calibrate(options: CalibrationOptions): Promise<Calibration> {
  const { cores, ranks, transport, signal, onProgress } = options;
  onProgress(`exchanges among ${ranks} ranks`);
  const exchange = await measureExchange(transport, ranks, signal);
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
  return { cores, ranks, transport, rates, predictSeconds, exchange, pieces };
}
