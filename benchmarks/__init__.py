"""Speed and accuracy of stemdisp, measured: see README.md."""
