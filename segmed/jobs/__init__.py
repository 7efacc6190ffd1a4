"""What an experiment of many runs consists of, and the engines that carry it: this machine, Ray, SLURM."""
