"""Triton kernels of the token shuffle. They know nothing of SGLang; they need torch, triton and numpy only."""
