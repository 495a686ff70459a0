/** Whether this process is a rank that mpirun or a scheduler has started. */

/** True for a process started by Open MPI's mpirun, or by Slurm with `srun --mpi=pmix`. */
export function isInsideMpi(): boolean {
  return process.env.OMPI_COMM_WORLD_SIZE !== undefined || process.env.PMIX_RANK !== undefined;
}
