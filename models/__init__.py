"""What is trained: RepMLPNet, UperNet, locality injection, checkpoints. Imports torch only."""
