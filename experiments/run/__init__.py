"""What a training run is made of besides `sel.training`: configuration files, data, progress, signals, traces."""
