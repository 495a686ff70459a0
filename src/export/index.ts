import { deepspeed } from './deepspeed.ts';
import type { EngineExporter } from './exporter.ts';
import { sglang } from './sglang.ts';
import { trtllm } from './trtllm.ts';
import { vllm } from './vllm.ts';

/** Every engine that plans can be exported to; adding one adds a line here. */
export const exporters: readonly EngineExporter[] = [sglang, vllm, trtllm, deepspeed];
