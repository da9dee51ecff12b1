"""What any program that writes files needs: durable writes, locks, HDF5, threads."""
