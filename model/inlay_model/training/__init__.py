"""Training: from scratch on phantoms and LoRA on anybody's reports, by denoising or by the next token."""
