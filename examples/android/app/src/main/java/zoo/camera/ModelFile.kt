package zoo.camera

import java.nio.*
import kotlin.math.*
import org.json.JSONArray
import org.json.JSONObject

/** What a .tflite file of fbnetv3-zoo says of itself: class names and preprocessing. No Android in here. */
class ModelFile(file: ByteBuffer) {
    val classNames: List<String>?
    val resize: Int
    val resolution: Int
    private val mean: List<Double>
    private val std: List<Double>

    init {
        val entries = JSONObject(entry(file.duplicate().order(ByteOrder.LITTLE_ENDIAN), "fbnetv3_zoo"))
        val names = entries.getString("class_names").takeIf { it != "null" }?.let(::JSONArray)
        classNames = names?.let { List(it.length(), it::getString) }
        val preprocess = JSONObject(entries.getString("preprocess"))
        resize = preprocess.getInt("resize")
        resolution = preprocess.getInt("resolution")
        fun numbers(key: String) = preprocess.getJSONArray(key).let { List(it.length(), it::getDouble) }
        mean = numbers("mean")
        std = numbers("std")
    }

    /** The network's input for a picture of ARGB pixels: resized (antialiased, linear), cropped, normalized. */
    fun input(pixels: IntArray, width: Int, height: Int): ByteBuffer {
        val shorter = min(width, height)
        val across = taps(width, resize * width / shorter)
        val down = taps(height, resize * height / shorter)
        val input = ByteBuffer.allocateDirect(4 * resolution * resolution * mean.size).order(ByteOrder.nativeOrder())
        val rows = Array(height) { arrayOfNulls<FloatArray>(resolution) } // resized across, when first needed
        for ((top, vertical) in down) for (column in 0 until resolution) {
            val sum = FloatArray(3)
            for ((k, weight) in vertical.withIndex()) {
                val row = rows[top + k]
                val rgb = row[column] ?: blend(pixels, (top + k) * width, across[column]).also { row[column] = it }
                for (c in 0..2) sum[c] += weight * rgb[c]
            }
            val levels = if (mean.size == 3) sum else floatArrayOf(0.299f * sum[0] + 0.587f * sum[1] + 0.114f * sum[2])
            for (c in mean.indices) input.putFloat(((levels[c] / 255 - mean[c]) / std[c]).toFloat())
        }
        return input.also { it.rewind() }
    }

    /** The most probable classes, with their probabilities. */
    fun best(logits: FloatArray, count: Int = 5): List<Pair<String, Double>> {
        val largest = logits.maxOrNull() ?: 0f
        val powers = logits.map { exp((it - largest).toDouble()) }
        val order = logits.indices.sortedByDescending { logits[it] }.take(count)
        return order.map { (classNames?.get(it) ?: "$it") to powers[it] / powers.sum() }
    }

    /** For each pixel of the crop of a line that is resized from `old` to `length`: first pixel, and weights. */
    private fun taps(old: Int, length: Int): List<Pair<Int, FloatArray>> {
        val scale = old.toDouble() / length
        val reach = max(scale, 1.0)
        val offset = Math.rint((length - resolution) / 2.0).toInt()
        return (offset until offset + resolution).map { n ->
            val center = (n + 0.5) * scale
            val start = max(0, (center - reach + 0.5).toInt())
            val end = min(old, (center + reach + 0.5).toInt())
            val weights = DoubleArray(end - start) { max(0.0, 1 - abs(start + it + 0.5 - center) / reach) }
            start to FloatArray(end - start) { (weights[it] / weights.sum()).toFloat() }
        }
    }

    private fun blend(pixels: IntArray, row: Int, taps: Pair<Int, FloatArray>): FloatArray {
        val sum = FloatArray(3)
        for ((k, weight) in taps.second.withIndex()) {
            val pixel = pixels[row + taps.first + k]
            for (c in 0..2) sum[c] += weight * (pixel shr (16 - 8 * c) and 255)
        }
        return sum
    }

    companion object {
        /** The metadata entry `name`: field 6 of the flatbuffer Model lists names and numbers of buffers, field 4. */
        private fun entry(file: ByteBuffer, name: String): String {
            fun follow(at: Int) = at + file.getInt(at)
            fun field(table: Int, number: Int): Int? {
                val fields = table - file.getInt(table)
                val slot = 4 + 2 * number
                val place = if (slot < file.getShort(fields)) file.getShort(fields + slot).toInt() else 0
                return if (place == 0) null else table + place
            }
            fun text(at: Int) = String(ByteArray(file.getInt(at)) { file.get(at + 4 + it) })
            val model = follow(0)
            val metadata = follow(requireNotNull(field(model, 6)) { "the model has no metadata" })
            for (n in 0 until file.getInt(metadata)) {
                val found = follow(metadata + 4 + 4 * n)
                if (text(follow(field(found, 0)!!)) != name) continue
                val buffers = follow(field(model, 4)!!)
                val buffer = follow(buffers + 4 + 4 * (field(found, 1)?.let { file.getInt(it) } ?: 0))
                return text(follow(field(buffer, 0)!!))
            }
            throw IllegalArgumentException("the model has no metadata of fbnetv3-zoo")
        }
    }
}
