"""Every cover has its blocks by now: the cells they were folded from go."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("geofences", "0008_fold_covers")]
    operations = [
        migrations.AlterField(
            "geofencecover",
            "blocks",
            models.BinaryField(help_text="The cells, folded by `geofences.blocks`."),
        ),
        migrations.AlterField(
            "geofencecover",
            "shape",
            models.BinaryField(
                help_text="Outline and grid, packed by `geofences.packing` from the normalised"
                " shape."
            ),
        ),
        migrations.RemoveField("geofencecover", "interior"),
        migrations.RemoveField("geofencecover", "boundary"),
    ]
