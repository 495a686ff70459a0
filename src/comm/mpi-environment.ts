/** What mpirun or a scheduler tells a process that it has started as a rank. */

/** True for a process started by Open MPI's mpirun, or by Slurm with `srun --mpi=pmix`. */
export function isInsideMpi(environment: Record<string, string | undefined> = process.env): boolean {
  return environment.OMPI_COMM_WORLD_SIZE !== undefined || environment.PMIX_RANK !== undefined;
}

/** This process among those that were started together; known before MPI is started. */
export function rankInsideMpi(environment: Record<string, string | undefined> = process.env): number {
  return Number(environment.OMPI_COMM_WORLD_RANK ?? environment.PMIX_RANK ?? 0);
}

/** How many processes were started together, where the launcher says so. */
export function sizeInsideMpi(environment: Record<string, string | undefined> = process.env): number | undefined {
  const size = environment.OMPI_COMM_WORLD_SIZE ?? (environment.PMIX_RANK && environment.SLURM_NTASKS);
  return size === undefined ? undefined : Number(size);
}

/** This process among those started on the same host, where the launcher says so. */
export function localRankInsideMpi(environment: Record<string, string | undefined> = process.env): number | undefined {
  const rank = environment.OMPI_COMM_WORLD_LOCAL_RANK ?? environment.SLURM_LOCALID;
  return rank === undefined ? undefined : Number(rank);
}

/** How many tasks a Slurm step has where Slurm has started them without telling MPI of each other: `srun` without --mpi=pmix. */
export function tasksWithoutMpi(environment: Record<string, string | undefined> = process.env): number | undefined {
  const tasks = Number(environment.SLURM_STEP_NUM_TASKS ?? 1);
  return tasks > 1 && environment.SLURM_PROCID !== undefined && !isInsideMpi(environment) ? tasks : undefined;
}

/** How many tasks the Slurm allocation around this process was asked for. */
export function tasksOfAllocation(environment: Record<string, string | undefined> = process.env): number | undefined {
  return environment.SLURM_NTASKS === undefined ? undefined : Number(environment.SLURM_NTASKS);
}
