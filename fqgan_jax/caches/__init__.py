"""What frozen networks make of a dataset, written once and read in training: codes and teachers' features."""
