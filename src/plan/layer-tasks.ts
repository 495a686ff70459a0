import { type AlternatingTask, solveAlternatingLayer } from './solvers/alternating-layer.ts';
import { type CrossEntropyTask, solveCrossEntropyLayer } from './solvers/cross-entropy-layer.ts';
import {
  type HypergraphLayerResult,
  type HypergraphLayerTask,
  solveHypergraphLayer,
} from './solvers/hypergraph-layer.ts';

/** What a worker thread can do for one layer: plain data in, plain data out. */
interface LayerTasks {
  hypergraph: (task: HypergraphLayerTask) => HypergraphLayerResult;
  /** Both return owners [N]. */
  alternating: (task: AlternatingTask) => Uint16Array;
  'cross-entropy': (task: CrossEntropyTask) => Uint16Array;
}

export const layerTasks: LayerTasks = {
  hypergraph: solveHypergraphLayer,
  alternating: solveAlternatingLayer,
  'cross-entropy': solveCrossEntropyLayer,
};

export type LayerTaskName = keyof LayerTasks;
export type LayerInput<Name extends LayerTaskName> = Parameters<LayerTasks[Name]>[0];
export type LayerOutput<Name extends LayerTaskName> = ReturnType<LayerTasks[Name]>;
