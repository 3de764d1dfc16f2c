"""All private names of Ray that this project uses; everything else takes them from here.

Only job/spot.py, which runs on nodes without the project, has some of its own. Nothing here imports
torch.
"""

from job.on_ray.private.releases import refusing

with refusing():
    # The workers, to do something on each before their process group is made.
    from ray.train._internal.base_worker_group import BaseWorkerGroup

    # What starts the actor that frees the resources of a dead controller.
    from ray.train.v2._internal.callbacks.placement_group_callback import (
        PlacementGroupCleanerCallback,
    )

    # The name of the list of checkpoints that Ray Train keeps in a run's folder.
    from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME

    # What policies answer.
    from ray.train.v2._internal.execution.failure_handling import FailureDecision
    from ray.train.v2._internal.execution.scaling_policy import (
        ElasticScalingPolicy,
        FixedScalingPolicy,
        NoopDecision,
        ResizeDecision,
        ScalingDecision,
    )

    # What policies and callbacks are shown of the workers.
    from ray.train.v2._internal.execution.worker_group import (
        WorkerGroupPollStatus,
        WorkerGroupState,
    )

    # Public as ray.train.NAME at run time, where mypy sees the classes of Train V1.
    from ray.train.v2.api.callback import UserCallback
    from ray.train.v2.api.config import CheckpointConfig as RayCheckpointConfig
    from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError
    from ray.train.v2.api.result import Result

    from job.on_ray.private.callbacks import RunWatcher, TrainRunContext
    from job.on_ray.private.checkpoints import (
        keep_no_list_of_checkpoints,
        list_of_checkpoints,
        quieten_snapshots,
    )
    from job.on_ray.private.cleaning import (
        PlacementGroupCleaner,
        judge_controllers_by,
        start_cleaners_of,
    )
    from job.on_ray.private.cluster import (
        cluster_state,
        create_data_actors,
        forbid_clusters,
        is_over,
        most_resources,
        start_on_loopback,
    )
    from job.on_ray.private.controllers import (
        DataParallelTrainer,
        TailoredController,
        TransparentController,
        announce_preemption,
    )
    from job.on_ray.private.errors import (
        CheckpointManagerInitializationError,
        UserExceptionWithTraceback,
        WorkerGroupStartupTimeoutError,
        raised_by_worker,
    )
    from job.on_ray.private.output import show_only, taking
    from job.on_ray.private.policies import (
        ElasticPolicy,
        ForgivingPolicy,
        NamedReservation,
        TrainAutoscalingCoordinatorClient,
    )

__all__ = [
    "CHECKPOINT_MANAGER_SNAPSHOT_FILENAME",
    "BaseWorkerGroup",
    "CheckpointManagerInitializationError",
    "ControllerError",
    "DataParallelTrainer",
    "ElasticPolicy",
    "ElasticScalingPolicy",
    "FailureConfig",
    "FailureDecision",
    "FixedScalingPolicy",
    "ForgivingPolicy",
    "NamedReservation",
    "NoopDecision",
    "PlacementGroupCleaner",
    "PlacementGroupCleanerCallback",
    "RayCheckpointConfig",
    "ResizeDecision",
    "Result",
    "RunConfig",
    "RunWatcher",
    "ScalingConfig",
    "ScalingDecision",
    "TailoredController",
    "TrainAutoscalingCoordinatorClient",
    "TrainRunContext",
    "TrainingFailedError",
    "TransparentController",
    "UserCallback",
    "UserExceptionWithTraceback",
    "WorkerGroupError",
    "WorkerGroupPollStatus",
    "WorkerGroupStartupTimeoutError",
    "WorkerGroupState",
    "announce_preemption",
    "cluster_state",
    "create_data_actors",
    "forbid_clusters",
    "is_over",
    "judge_controllers_by",
    "keep_no_list_of_checkpoints",
    "list_of_checkpoints",
    "most_resources",
    "quieten_snapshots",
    "raised_by_worker",
    "show_only",
    "start_cleaners_of",
    "start_on_loopback",
    "taking",
]
