"""Experiments on toy data: a student under a teacher, as files in the current folder, and one under a curriculum."""

from pathlib import Path

TEACHER = """
name: toy_teacher
data: {class_path: toy.ToyData}
model:
  class_path: sdsnn_lightning.Classifier
  init_args:
    network: {class_path: toy.ToyTeacher, init_args: {hidden: "${data.init_args.batch_size}"}}
    view: teacher
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
trainer: {max_epochs: 2, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
"""
STUDENT = """
name: toy
data: {class_path: toy.ToyData}
model:
  class_path: sdsnn_lightning.Distiller
  init_args:
    student: {class_path: toy.ToyNet, init_args: {hidden: 5}}
    teacher: {class_path: toy.ToyTeacher, init_args: {hidden: "${data.init_args.batch_size}"}}
    teacher_checkpoint: ${runs}/toy_teacher/seed${seed_everything}.ckpt
    teacher_experiment: teacher.yaml
    alpha: 0.5
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
    scheduler: {class_path: torch.optim.lr_scheduler.CosineAnnealingLR, init_args: {T_max: "${trainer.max_epochs}"}}
trainer:
  max_epochs: 2
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  log_every_n_steps: 1
  callbacks: [{class_path: sdsnn_lightning.strategies.LogitDistillation, init_args: {weight: 0.5}}]
"""
CURRICULUM = """
name: toy
data: {class_path: toy.TimedToy}
model:
  class_path: sdsnn_lightning.Distiller
  init_args:
    student: {class_path: toy.ToyNet, init_args: {dropout: 0.2}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.05}}
    scheduler: {class_path: sdsnn_lightning.strategies.WarmupCosine, init_args: {warmup: 0.2}}
trainer:
  max_epochs: 7
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  log_every_n_steps: 1
  callbacks:
    - class_path: sdsnn_lightning.strategies.TimeStepCurriculum
      init_args: {stages: [{step_ms: 10, share: 2}, {step_ms: 20}, {step_ms: 40}], monitor: val/WAR}
"""


def write_toy() -> None:
    """Writes `teacher.yaml` and `toy.yaml`."""
    Path("teacher.yaml").write_text(TEACHER)
    Path("toy.yaml").write_text(STUDENT)
