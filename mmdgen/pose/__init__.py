"""The pose vector and its sampling; bones, append and morphs as matrices and weights; the reduction to rigid groups."""
