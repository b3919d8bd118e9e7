"""The Python interface: what `import lmmcl` offers, in few calls that mean the same as the commands of the same names."""
