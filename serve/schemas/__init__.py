"""The wire: what a caller sends and gets."""

from serve.schemas.create import CreateVideo as CreateVideo
from serve.schemas.create import CreateVideoForm as CreateVideoForm
from serve.schemas.create import CreateVideoJson as CreateVideoJson
from serve.schemas.create import create_body_schema as create_body_schema
from serve.schemas.discovery import CategoryCard as CategoryCard
from serve.schemas.discovery import Limits as Limits
from serve.schemas.discovery import Model as Model
from serve.schemas.discovery import ModelList as ModelList
from serve.schemas.discovery import PresetCard as PresetCard
from serve.schemas.discovery import PresetList as PresetList
from serve.schemas.envelope import ErrorDetail as ErrorDetail
from serve.schemas.envelope import ErrorEnvelope as ErrorEnvelope
from serve.schemas.envelope import Health as Health
from serve.schemas.envelope import ReadinessReport as ReadinessReport
from serve.schemas.files import CreateFile as CreateFile
from serve.schemas.files import File as File
from serve.schemas.files import FileDeleted as FileDeleted
from serve.schemas.files import FileList as FileList
from serve.schemas.files import file_body_schema as file_body_schema
from serve.schemas.prompts import PromptFields as PromptFields
from serve.schemas.prompts import PromptPreview as PromptPreview
from serve.schemas.video import Video as Video
from serve.schemas.video import VideoDeleted as VideoDeleted
from serve.schemas.video import VideoFeedback as VideoFeedback
from serve.schemas.video import VideoList as VideoList
