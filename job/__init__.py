"""What one training job does: config, data, models, engine, state, evaluation, figures."""
