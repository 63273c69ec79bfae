"""A student under a teacher on toy data, as files in the current folder."""

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


def write_toy() -> None:
    """Writes `teacher.yaml` and `toy.yaml`."""
    Path("teacher.yaml").write_text(TEACHER)
    Path("toy.yaml").write_text(STUDENT)
